"""R24: a long run needs no more than a short one: memory, file handles, threads and shared memory stay flat."""

import json
import os
import sys
from pathlib import Path

import pytest
from lightning.pytorch import Callback
from scipy.stats import theilslopes
from tests.reliability.processes import session

pytestmark = pytest.mark.alone

PAGE = os.sysconf("SC_PAGE_SIZE")


def resources(pid: int) -> dict[str, int]:
    """What a process holds now."""
    folder = Path("/proc") / str(pid)
    links = [os.readlink(path) for path in (folder / "fd").iterdir() if path.is_symlink()]
    return {
        "bytes": int((folder / "statm").read_text().split()[1]) * PAGE,
        "handles": len(links),
        "threads": len(list((folder / "task").iterdir())),
        "shared": sum("/dev/shm/" in line for line in (folder / "maps").read_text().splitlines()),
    }


class Sampling(Callback):
    """A line an epoch: of this process, and of all of its session, sums."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        every = [resources(pid) for pid in session(os.getsid(0))]
        row = {"processes": len(every), **{key: sum(one[key] for one in every) for key in every[0]}}
        row["in_shm"] = len(os.listdir("/dev/shm"))
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def sampled_train(path: Path, *argv: str) -> int:
    """`train` with a sample of its resources at each epoch's end."""
    from segkit.configuration.entry import Request, resolve
    from segkit.workflows.train import run

    run(resolve("train", Request(list(argv))), callbacks=[Sampling(path)])
    return 0


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_grows(forks, train_argv, tmp_path, size, workers):
    if workers and not size(False, True):
        pytest.skip("with loader processes at full size only: SEGKIT_RELIABILITY=full")
    epochs, path = size(24, 500), tmp_path / "samples.jsonl"
    # Each epoch is validated, drawn, and ends with a checkpoint: all that a long run does again and again.
    argv = train_argv("soak", f"trainer.max_epochs={epochs}", "trainer.steps_per_epoch=1", f"data.workers={workers}")
    child = forks.start(sampled_train, path, *argv, output=tmp_path / "soak")
    assert child.wait(size(120, 1800)) == 0, child.stderr
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == epochs
    rows = rows[size(1, 2) * epochs // 3 :]  # allocators and caches fill at first, in steps of megabytes
    # The median of all slopes between two epochs: an allocator's single step is no growth.
    slopes = {key: float(theilslopes([row[key] for row in rows]).slope) for key in rows[0]}
    sys.stdout.write(f"a epoch, over {len(rows)} epochs: {slopes}\n")
    assert slopes["bytes"] < size(400_000, 20_000)
    for key in ("processes", "handles", "threads", "shared"):
        held = [row[key] for row in rows]
        # Nor is a file that a library opens once and keeps, or one that a thread is just writing.
        assert slopes[key] <= 0, (key, held)
        assert max(held) <= min(held) + 2, (key, held)
