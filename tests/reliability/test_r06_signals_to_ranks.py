"""R6, several ranks: a signal to any of them, to all, to their starter or its process group ends all with a checkpoint.

Stock Lightning hangs when the second of two ranks is asked: it broadcasts from within the signal handler.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segkit.runs.checkpoints import newest_valid
from segkit.runs.directory import RunDirectory
from segkit.runs.index import last, load_index
from segkit.runs.manifest import MANIFEST, verify_checkpoint

pytestmark = pytest.mark.alone

WITHIN_S = 5.0
STEP_S = 0.5
"""A step is made to take so long on the second rank, so that the signal meets it within one."""
SLOW = ["loss=custom", "loss._target_=tests.reliability.faulty.FaultyLoss"]
SLOW += ["loss.args.rank=1", "loss.args.how=sleep", "loss.args.where=step", "loss.args.at=1"]
EVERYONE = [(target, number) for target in ("1", "0", "both", "starter", "group") for number in ("TERM", "INT", "USR1")]
FAST = [("1", "TERM")]


def rank_pids(path: Path) -> dict[str, int]:
    """Process id of each rank of a run, by its number."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if b"segkit._worker\0" + str(path).encode() in (entry / "cmdline").read_bytes():
                variables = (entry / "environ").read_bytes().split(b"\0")
                number = next(v for v in variables if v.startswith(b"RANK="))
                found[number.removeprefix(b"RANK=").decode()] = int(entry.name)
        except (OSError, StopIteration):
            continue
    return found


def steps_taken(path: Path) -> int:
    return (path / "metrics.jsonl").read_text().count('"train/loss"') if (path / "metrics.jsonl").exists() else 0


@pytest.mark.slow  # the small form of R6 is that of one process
@pytest.mark.timeout(1800)
def test_everyone_ends_with_a_checkpoint(run_config, size, tmp_path):
    for target, name in size(FAST, EVERYONE):
        config = run_config(
            f"{target}-{name}", "trainer.devices=2", "trainer.steps_per_epoch=40", "trainer.log_every_n_steps=1", *SLOW
        )
        directory = RunDirectory(Path(config["paths"]["runs"]) / f"{target}-{name}")
        command = [sys.executable, "-m", "segkit.train", *config["overrides"]]
        with (tmp_path / "log").open("wb") as log:
            starter = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        while steps_taken(directory.path) < 2:
            assert starter.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        number = getattr(signal, f"SIG{name}")
        ranks = rank_pids(directory.path)
        asked = time.time()
        if target == "group":
            os.killpg(starter.pid, number)
        else:
            for pid in {"starter": [starter.pid], "both": [*ranks.values()]}.get(target) or [ranks[target]]:
                os.kill(pid, number)
        assert starter.wait(timeout=60) == 75, (tmp_path / "log").read_text()
        assert directory.load_status()["state"] == "preempted"
        assert name in directory.load_status()["reason"]
        newest = newest_valid(directory.checkpoints)
        assert (newest / MANIFEST).stat().st_mtime - asked < WITHIN_S + STEP_S
        assert verify_checkpoint(newest).n == 2 * last(load_index(directory.checkpoints)).step
        assert rank_pids(directory.path) == {}
        assert not directory.ranks.exists()
