"""Real processes for the tests: quick to start, killed at will, and searched for what they leave behind."""

import base64
import json
import os
import pickle
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.reliability.fork_server import verb

ROOT = Path(__file__).parents[2]
_PROC = Path("/proc")
_SHARED_MEMORY = Path("/dev/shm")
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MPLBACKEND": "agg",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow comes with MLflow; a server with threads cannot fork
    "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
}


class ForkServer:
    """Starts children; see `tests.reliability.fork_server`."""

    def __init__(self) -> None:
        code = "from tests.reliability.fork_server import serve; serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, **_ENVIRONMENT},
        )
        self._pending = b""
        self._codes: dict[int, int] = {}
        self._children: list[Child] = []
        try:
            assert self._message(120.0) == {"ready": True}, "the fork server did not come up"
        except BaseException:
            self._process.kill()
            self.close()
            raise

    def start(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        output: Path,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> "Child":
        """Run a function of a module in a child; what it returns is the exit code.

        Args:
            function: Found by its module and name, in the repository or in a package.
            arguments: Picklable.
            output: Folder for the files `stdout` and `stderr`; appended to, where they are there.
            cwd: Working directory; `output` if None.
            environment: More variables.
        """
        output.mkdir(parents=True, exist_ok=True)
        request = {
            "function": function,
            "arguments": arguments,
            "output": output,
            "cwd": cwd or output,
            "environment": environment or {},
        }
        assert self._process.stdin is not None
        self._process.stdin.write(base64.b64encode(pickle.dumps(request)) + b"\n")
        self._process.stdin.flush()
        while "started" not in (message := self._message(20.0)):
            self._note(message)
        child = Child(self, int(message["started"]), output)
        self._children.append(child)
        return child

    def command(self, name: str, argv: Sequence[str], *, output: Path) -> "Child":
        """`python -m segkit.NAME ARGV...` in a child."""
        return self.start(verb, name, *argv, output=output)

    def code(self, pid: int, timeout: float) -> int | None:
        """Exit code of a child, None where it still runs after `timeout` s; negative for a signal."""
        end = time.monotonic() + timeout
        while pid not in self._codes:
            message = self._message(max(0.0, end - time.monotonic()))
            if not message:
                return None
            self._note(message)
        return self._codes[pid]

    def close(self) -> None:
        """Kill what still runs, and end."""
        for child in self._children:
            child.kill_all()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()

    def _note(self, message: dict[str, Any]) -> None:
        self._codes[message["ended"]] = message["code"]

    def _message(self, timeout: float) -> dict[str, Any]:
        """The next message; empty where none came in time."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        end = time.monotonic() + timeout
        while b"\n" not in self._pending:
            if not select.select([descriptor], [], [], max(0.0, end - time.monotonic()))[0]:
                return {}
            data = os.read(descriptor, 65536)
            if not data:
                raise RuntimeError("the fork server has died")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return json.loads(line)


class Child:
    """A process of its own session; its workers belong to the same session, also when it is dead."""

    def __init__(self, server: ForkServer, pid: int, output: Path) -> None:
        self._server, self.pid, self.output = server, pid, output

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to this process alone, if it has not ended."""
        if self._server.code(self.pid, 0.0) is None:
            os.kill(self.pid, number)

    def kill_all(self) -> None:
        """Kill this process and what it has started."""
        for pid in session(self.pid):
            os.kill(pid, signal.SIGKILL)

    def wait(self, timeout: float = 120.0) -> int:
        """Exit code, negative for a signal. A process that hangs is killed and fails the test."""
        code = self._server.code(self.pid, timeout)
        if code is None:
            self.kill_all()
            raise AssertionError(f"process {self.pid} did not end within {timeout} s\n{self.stderr}")
        return code

    def running(self) -> bool:
        """Whether it has not ended."""
        return self._server.code(self.pid, 0.0) is None

    @property
    def stdout(self) -> str:
        """What it has printed."""
        return (self.output / "stdout").read_text()

    @property
    def stderr(self) -> str:
        """What it has printed on standard error."""
        return (self.output / "stderr").read_text()


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """The fork server of all tests."""
    if not _PROC.is_dir():
        pytest.skip("needs /proc")
    server = ForkServer()
    yield server
    server.close()


def session(leader: int) -> list[int]:
    """Processes of a session that live; the leader may be dead."""
    found = []
    for folder in _PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == leader and fields[0] not in "ZX":
            found.append(int(folder.name))
    return found


def shared_memory(pids: Iterable[int]) -> list[str]:
    """Names in /dev/shm that these processes, dead or alive, have given: semaphores and torch's tensors.

    Other programs may come and go there meanwhile; the fork server makes its children's semaphores bear their pid.
    """
    begins = tuple(f"{kind}{pid}{end}" for pid in pids for kind, end in (("sem.mp-", "-"), ("torch_", "_")))
    return sorted(name for name in os.listdir(_SHARED_MEMORY) if name.startswith(begins))


def listening(pids: Sequence[int]) -> list[int]:
    """TCP ports on which any of the processes listens."""
    inodes = {}
    for table in ("tcp", "tcp6"):
        for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                inodes[fields[9]] = int(fields[1].rpartition(":")[2], 16)
    ports = []
    for pid in pids:
        try:
            links = [os.readlink(path) for path in (_PROC / str(pid) / "fd").iterdir()]
        except OSError:
            continue
        ports += [inodes[name[8:-1]] for name in links if name.startswith("socket:") and name[8:-1] in inodes]
    return sorted(ports)


def leftovers(*folders: Path) -> list[Path]:
    """Temporary files and folders below `folders`: every name of ours that begins with a dot."""
    known = {".prepared"}
    return sorted(path for folder in folders for path in folder.rglob(".*") if path.name not in known)


def until(condition: Callable[[], bool], *, within: float, every: float = 0.01) -> bool:
    """Wait for a condition; whether it came true within so many seconds."""
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(every)
    return True
