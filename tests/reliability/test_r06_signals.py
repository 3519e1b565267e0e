"""R6: SIGTERM, SIGUSR1, SIGINT: a whole checkpoint within one step and five seconds, exit code 75, then the same bits.

A second signal ends the process at once. Before and after the training proper a signal ends the run as soon as
Python can, also with 75; nothing half-written stays, and the same command goes on.
"""

import itertools
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.reliability.fork_server import verb
from tests.reliability.phases import marked_train, phase_of
from tests.reliability.processes import ROOT, leftovers, until
from tests.reliability.test_r01_kill import SETTINGS, fingerprint

from segkit.runs.checkpoints import newest_valid
from segkit.runs.files import read_json

pytestmark = pytest.mark.alone

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
# Some hundred tiles an image: a validation takes a second or more, a step a tenth of one.
SLOW_VALIDATION = ("validation.step=0.1", "plan.patch_size=[16,16,16]", "validation.tile_batch=1")


@pytest.fixture
def started(forks, train_argv, tmp_path):
    """Factory: start a marked run and wait until it is in a phase; returns the child and its marker."""

    def start(name: str, phase: str, *overrides: str):
        marker = tmp_path / f"{name}.phase"
        marker.unlink(missing_ok=True)
        child = forks.start(marked_train, marker, 0.0, *train_argv(name, *overrides), output=tmp_path / name)
        assert until(lambda: phase_of(marker) == phase or not child.running(), within=60, every=0.001)
        return child, marker

    return start


@pytest.fixture
def finished(forks, train_argv, tmp_path):
    """Factory: run the same command to its end; returns what it ends with."""

    def finish(name: str, *overrides: str):
        child = forks.start(verb, "train", *train_argv(name, *overrides), output=tmp_path / name)
        assert child.wait() == 0, child.stderr
        return fingerprint(tmp_path / "runs" / name)

    return finish


def test_a_signal_at_any_instant_of_the_training(started, finished, tmp_path, size):
    settings = (*SETTINGS, "trainer.max_epochs=4", "checkpoint.every_s=null")
    expected = finished("whole", *settings)
    rng = np.random.default_rng(1)
    for number in range(size(3, 20)):
        name, which = f"signalled-{number}", SIGNALS[number % 3]
        child, _ = started(name, "step", *settings)
        time.sleep(rng.uniform(0, 0.4))
        asked = time.time()
        child.kill(which)
        code = child.wait(20)
        if code == 0:  # it was through before the signal came
            continue
        assert code == 75, child.stderr
        assert f"signal {which.name}" in child.stderr
        run = tmp_path / "runs" / name
        newest = newest_valid(run / "checkpoints")
        assert newest is not None
        assert asked - 1 < (newest / "MANIFEST.json").stat().st_mtime < asked + 5
        assert read_json(run / "STATUS.json")["state"] == "preempted"
        assert leftovers(run) == []
        assert finished(name, *settings) == expected


@pytest.mark.slow
def test_a_signal_within_a_long_validation(started, finished, tmp_path, size):
    expected = finished("whole", *SETTINGS, *SLOW_VALIDATION)
    for number in range(size(1, 6)):
        name = f"validating-{number}"
        child, marker = started(name, "validation", *SETTINGS, *SLOW_VALIDATION)
        time.sleep(0.03 * number)
        assert phase_of(marker) == "validation"
        asked = time.time()
        child.kill(SIGNALS[number % 3])
        assert child.wait(20) == 75, child.stderr
        run = tmp_path / "runs" / name
        newest = newest_valid(run / "checkpoints")
        assert newest is not None
        written = (newest / "MANIFEST.json").stat().st_mtime
        assert written < asked + 5
        assert phase_of(marker) != "validation"
        assert read_json(newest / "MANIFEST.json")["entry"]["score"] is None  # it did not wait for the validation's end
        assert finished(name, *SETTINGS, *SLOW_VALIDATION) == expected


@pytest.mark.parametrize("which", SIGNALS)
def test_a_second_signal_ends_at_once(started, tmp_path, which):
    # A step of a minute, as a large network on a slow machine has it: the first signal waits for its end.
    child, marker = started("twice", "step", "trainer.steps_per_epoch=3000", "trainer.accumulate=3000")
    time.sleep(0.1)
    assert phase_of(marker) in {"step", "fit"}
    child.kill(which)
    time.sleep(0.3)
    assert child.running()
    child.kill(which)
    assert child.wait(5) == -which  # a shell shows it as 128 + n: 130 for SIGINT, 143 for SIGTERM
    assert leftovers(tmp_path / "runs" / "twice") == []


def test_a_signal_before_and_after_the_training(forks, finished, train_argv, tmp_path, size):
    expected = finished("whole")
    for number, phase in itertools.product(range(size(1, 6)), ("preparing", "drawing", "end")):
        name, marker = f"{phase}-{number}", tmp_path / f"{phase}-{number}.phase"
        cache = f"paths.cache={tmp_path / 'caches' / name}"  # a cold one, so that there is something to prepare
        child = forks.start(marked_train, marker, 0.0, *train_argv(name, cache), output=tmp_path / name)
        assert until(lambda m=marker, p=phase: phase_of(m) == p, within=60, every=0.001)
        time.sleep(0.01 * number)
        child.kill(SIGNALS[number % 3])
        code = child.wait(20)
        # The last instants of a run cannot be stopped any more, only Python's own end.
        status = tmp_path / "runs" / name / "STATUS.json"
        assert code in (75, 0) or read_json(status).get("ended"), (code, child.stderr)
        assert "Traceback" not in child.stderr
        assert leftovers(tmp_path / "runs" / name, tmp_path / "caches" / name) == []
        assert finished(name, cache) == expected
        assert read_json(tmp_path / "runs" / name / "STATUS.json")["ended"] is True


SCHEDULER = """\
# Plays SLURM: sends the signal of `--signal=B:USR1@...` before the time limit, starts the job again on `scontrol
# requeue`, and gives up after ten lives. $1: the job's script.
export SLURM_JOB_ID=77 SLURM_NTASKS=1 SLURM_JOB_NAME=train SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODELIST=localhost
for life in 1 2 3 4 5 6 7 8 9 10; do
    rm -f requeued
    bash "$1" & job=$!
    (while ! grep -q '"epoch": '$((life * 4)), metrics 2>/dev/null; do sleep 0.05; done; kill -USR1 $job) & clock=$!
    wait $job; code=$?
    kill $clock 2>/dev/null
    echo "life $life ended with $code" >> lives
    test -e requeued || exit $code
done
exit 99
"""


@pytest.mark.slow
def test_a_stand_in_for_slurm_starts_it_again_until_it_is_done(train_argv, tmp_path):
    """The job's script of docs/slurm.md, run by a shell script that plays the scheduler."""
    page = (ROOT / "docs" / "slurm.md").read_text()
    script = page.split("```bash\n", 1)[1].split("```", 1)[0]
    command = " ".join(["train", *train_argv("job", "trainer.max_epochs=10")])
    script = script.replace("segkit train run_name=my-run data.root=/data/my-dataset", f"segkit {command}")
    assert command in script
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in {
        "segkit": f'exec {sys.executable} -m "segkit.$1" "${{@:2}}"',
        "scontrol": 'test "$1 $2" = "requeue 77" && touch requeued',
        "srun": 'exec "$@"',
    }.items():
        tool = tools / name
        tool.write_text(f"#!/bin/bash\n{text}\n")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "job.sh").write_text(script)
    (tmp_path / "slurm.sh").write_text(SCHEDULER)
    (tmp_path / "metrics").symlink_to(tmp_path / "runs" / "job" / "metrics.jsonl")
    run = subprocess.run(
        ["bash", "slurm.sh", "job.sh"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    lives = (tmp_path / "lives").read_text().splitlines()
    assert run.returncode == 0, run.stderr
    assert lives[0] == "life 1 ended with 0"
    assert len(lives) >= 2
    assert read_json(Path(tmp_path / "runs" / "job" / "STATUS.json"))["ended"] is True
