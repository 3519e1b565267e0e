"""Training, evaluating and tracking speak to nobody."""

import json
import os
import subprocess
import sys

import pytest

HOOK = """
import os, sys
def _hook(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo"):
        with open(os.environ["SOCKET_LOG"], "a") as file:
            file.write(f"{event} {arguments[1:] if event != 'socket.getaddrinfo' else arguments[:2]!r}\\n")
sys.addaudithook(_hook)
"""


def _is_local(line: str) -> bool:
    """Loopback, or a path of the local domain."""
    return any(word in line for word in ("127.0.0.1", "'::1'", "localhost", "('/", "(b'", "('\\x00"))


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
    assert "192.0.2.1" in log.read_text()
    log.write_text("")
    segkit("train", "experiment=demo", "plan=tiny", "run_name=r", "trainer.max_epochs=2", "trainer.steps_per_epoch=2")
    segkit("evaluate", "run=runs/r")
    assert json.loads((tmp_path / "runs/r/mlflow.json").read_text())["run_id"]
    assert [line for line in log.read_text().splitlines() if not _is_local(line)] == []
