"""A real HTTP server that fails as its script says, one word a request.

500 404 429 ...   that status, with MLflow's kind of body
slow              an answer after `delay_s`, 500 if there is no server behind
close             the connection is reset
half              the connection is closed in the middle of the answer
garbage           200 with bytes that are no JSON
html              200 with a page, as a captive portal sends it
list              200 with JSON that is no object
ok                what the server behind says; there must be one
"""

import http.client
import http.server
import json
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_BODIES = {"garbage": b"\x00\xff not json", "html": b"<html><body>Please log in</body></html>", "list": b"[1, 2]"}


class FailingServer:
    """On 127.0.0.1 and a free port, for the length of a `with` block.

    Args:
        script: Words in order; the last one counts for all further requests.
        behind: Address of a server that answers "ok" and "slow".
        delay_s: How long "slow" takes, s.
    """

    def __init__(self, script: Sequence[str], *, behind: str = "", delay_s: float = 0.0) -> None:
        self.script, self.behind, self.delay_s = list(script), behind, delay_s
        self.requests: list[str] = []
        self._guard = threading.Lock()
        self._closing = threading.Event()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FailingServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def next_word(self, request: str) -> str:
        with self._guard:
            self.requests.append(request)
            return self.script[min(len(self.requests), len(self.script)) - 1]

    def wait(self) -> None:
        self._closing.wait(self.delay_s)


class _Handler(http.server.BaseHTTPRequestHandler):
    owner: FailingServer

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        word = self.owner.next_word(f"{self.command} {self.path}")
        if word == "slow":
            self.owner.wait()
            word = "ok" if self.owner.behind else "500"
        if word == "ok":
            self._forward(body)
        elif word == "close":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif word == "half":
            self._send(200, b'{"run": {"info": {', length=4000)
            self.close_connection = True
        elif word in _BODIES:
            self._send(200, _BODIES[word])
        else:
            self._send(int(word), json.dumps({"error_code": "INTERNAL_ERROR", "message": f"scripted {word}"}).encode())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def _send(self, status: int, body: bytes, *, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def _forward(self, body: bytes) -> None:
        behind = urllib.parse.urlsplit(self.owner.behind)
        assert behind.hostname is not None
        connection = http.client.HTTPConnection(behind.hostname, behind.port, timeout=60)
        headers = {key: value for key, value in self.headers.items() if key.lower() not in {"host", "connection"}}
        connection.request(self.command, self.path, body=body or None, headers=headers)
        answer = connection.getresponse()
        self._send(answer.status, answer.read())
        connection.close()

    def log_message(self, *_: object) -> None:
        """Silent."""


def refusing_url() -> str:
    """An address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def black_hole() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def wait_until_up(url: str, *, seconds: float = 60) -> None:
    """Wait for a server to answer at /health."""
    address = urllib.parse.urlsplit(url)
    assert address.hostname is not None
    until = time.monotonic() + seconds
    while True:
        try:
            connection = http.client.HTTPConnection(address.hostname, address.port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            if time.monotonic() > until:
                raise
        time.sleep(0.2)
