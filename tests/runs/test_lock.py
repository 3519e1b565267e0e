"""One process a run folder; a dead one holds nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segkit.errors import ExitCode, RunInUseError
from segkit.runs.lock import holder, lock

# A real second process; imports neither torch nor lightning, so it is quick.
HOLD = """
import sys, time
from pathlib import Path
from segkit.runs.lock import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    {then}
"""


def other(path: Path, then: str = "time.sleep(60)") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(then=then), str(path)], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout.readline() == "held\n"
    return process


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_second_process_is_refused_with_the_holders_name(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    process = other(path)
    try:
        with pytest.raises(RunInUseError, match=f"process {process.pid} on") as refusal, lock(path):
            pass
        assert refusal.value.exit_code == ExitCode.IN_USE == 73
        assert holder(path).pid == process.pid
    finally:
        stop(process)


def test_a_killed_holder_holds_nothing(tmp_path: Path, caplog) -> None:
    path = tmp_path / "run.lock"
    process = other(path)
    stop(process)
    assert holder(path) is None
    with lock(path) as me:
        assert me.pid == os.getpid()
    assert f"process {process.pid} on" in caplog.text


def test_an_orphaned_child_of_the_holder_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    process = other(
        path, then="import os; pid = os.fork(); pid or time.sleep(60); print(pid, flush=True); time.sleep(60)"
    )
    child = int(process.stdout.readline())
    stop(process)
    try:
        with lock(path):
            os.kill(child, 0)  # still alive
    finally:
        os.kill(child, signal.SIGKILL)


def test_second_block_of_the_same_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with lock(path), pytest.raises(RunInUseError), lock(path):
        pass
    with lock(path):
        pass


def test_asking_who_holds_does_not_let_go(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    assert holder(path) is None
    with lock(path) as me:
        assert holder(path) == me
        # Had `holder` opened and closed the file here, the kernel would have dropped the lock.
        code = "import sys, segkit.runs.lock as l; from pathlib import Path; l.lock(Path(sys.argv[1])).__enter__()"
        answer = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
        assert "RunInUseError" in answer.stderr
    assert holder(path) is None
    assert path.read_text() == ""


def test_content_is_only_for_people(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    for content in ("", "garbage", json.dumps({"pid": 1}), "[]"):
        path.write_text(content)
        with lock(path) as me:
            assert me.pid == os.getpid()
