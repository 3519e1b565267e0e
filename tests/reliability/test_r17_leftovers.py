"""R17: whatever ends a run, nothing is left: no temporary files, shared memory, processes or ports.

After a kill -9 the processes and the shared memory are gone within seconds, the files with the next start. Not held
then: Python's own folder of a socket (`pymp-*` in $TMPDIR), which is made for the loader's processes.
"""

import signal
import time
from pathlib import Path

import pytest
from tests.reliability.fork_server import verb
from tests.reliability.phases import marked_train, phase_of
from tests.reliability.processes import leftovers, listening, session, shared_memory, until

pytestmark = pytest.mark.alone

ENDS = {"success": 0, "error": 1, "signal": 75, "kill": -signal.SIGKILL}


def failing_train(*argv: str) -> int:
    """`train` with a bug in its fourth step."""
    from segkit.module.segmentation import SegmentationModule

    step = SegmentationModule.training_step

    def fail(self, batch, batch_idx):
        if self.global_step == 3:
            raise RuntimeError("a bug")
        return step(self, batch, batch_idx)

    SegmentationModule.training_step = fail
    return verb("train", *argv)


def begin(forks, end, argv, tmp_path):
    marker, output = tmp_path / "phase", tmp_path / "output"
    environment = {"TMPDIR": str(tmp_path / "temporary")}
    if end == "error":
        return forks.start(failing_train, *argv, output=output, environment=environment)
    child = forks.start(marked_train, marker, 0.01, *argv, output=output, environment=environment)
    if end in {"signal", "kill"}:
        # Within a write where it is killed: that leaves the most behind.
        wanted = "checkpoint" if end == "kill" else "step"
        assert until(lambda: phase_of(marker) == wanted, within=60, every=0.001)
        assert listening(session(child.pid)) == []
        if "data.workers=2" in argv:  # what is looked for afterwards is there now
            assert len(session(child.pid)) > 2
            assert shared_memory([child.pid]) != []
        time.sleep(0.02)
        child.kill(signal.SIGTERM if end == "signal" else signal.SIGKILL)
    return child


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left(forks, train_argv, tmp_path: Path, size, end, workers):
    if workers and not size(False, True):
        pytest.skip("with loader processes at full size only: SEGKIT_RELIABILITY=full")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    argv = train_argv("run", f"data.workers={workers}", "checkpoint.every_s=0.001", "trainer.max_epochs=3")
    child = begin(forks, end, argv, tmp_path)
    seen = {child.pid}
    while child.running():
        seen |= set(session(child.pid))
        time.sleep(0.05)
    assert child.wait() == ENDS[end], child.stderr
    assert until(lambda: session(child.pid) == [], within=15), session(child.pid)
    assert until(lambda: shared_memory(seen) == [], within=15), shared_memory(seen)
    if end == "kill":
        assert {path.name[:5] for path in temporary.iterdir()} <= {"pymp-"}
        for path in temporary.iterdir():
            (path / "done").touch()
        again = begin(forks, "success", argv, tmp_path)
        assert again.wait() == 0, again.stderr
        assert [path for path in temporary.iterdir() if not (path / "done").exists()] == []
    else:
        assert list(temporary.iterdir()) == []
    assert leftovers(tmp_path / "runs") == []
