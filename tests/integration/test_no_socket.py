"""Training, evaluating and tracking speak to nobody."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HOOK = """
import json, os, sys
_ADDRESS = {"socket.connect": 1, "socket.bind": 1, "socket.sendto": 1, "socket.sendmsg": 1,
            "socket.getaddrinfo": 0, "socket.gethostbyname": 0, "socket.gethostbyaddr": 0, "socket.getnameinfo": 0}
def _hook(event, arguments):
    if event not in _ADDRESS:
        return
    address = arguments[_ADDRESS[event]]
    internet = isinstance(address, tuple) or event not in list(_ADDRESS)[:4]
    host = address[0] if isinstance(address, tuple) else address
    host = host.decode() if isinstance(host, bytes) else host
    if internet and host is not None:  # a path of the local domain is no host; None is the loopback interface
        with open(os.environ["SOCKET_LOG"], "a") as file:
            file.write(json.dumps([event, host, sys.argv[:2]]) + chr(10))
sys.addaudithook(_hook)
"""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _beyond_loopback(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if json.loads(line)[1] not in LOOPBACK]


@pytest.mark.slow
def test_train_evaluate_and_mlflow_open_no_socket_beyond_loopback(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    log = tmp_path / "sockets.log"
    log.touch()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "SOCKET_LOG": str(log)}
    environment.pop("MLFLOW_DISABLE_TELEMETRY", None)  # segkit itself must see to it

    def segkit(verb: str, *overrides: str) -> None:
        command = [sys.executable, "-m", f"segkit.{verb}", *overrides]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    # the hook sees what there is to see
    probe = "import socket\ntry: socket.create_connection(('192.0.2.1', 9), 0.01)\nexcept OSError: pass"
    subprocess.run([sys.executable, "-c", probe], env=environment, check=True)
    assert len(_beyond_loopback(log)) == 2  # the name, then the address
    log.write_text("")
    segkit("train", "experiment=demo", "plan=tiny", "run_name=r", "trainer.max_epochs=2", "trainer.steps_per_epoch=2")
    segkit("evaluate", "run=runs/r")
    assert json.loads((tmp_path / "runs/r/mlflow.json").read_text())["run_id"]
    assert _beyond_loopback(log) == []
