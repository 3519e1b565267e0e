"""R1: killed at any instant (kill -9), the same command ends with the same bits as the run that was never killed.

The same bits: the newest checkpoint file by file (weights, averaged weights, moments, schedule, counters, early
stopping), which checkpoint is best and last, the journal, the scores of the cases and the picture of the curves.
With tracking also: one MLflow run, and each (key, step) in it once.
"""

import json
import sqlite3
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tests.reliability.phases import marked_train, phase_of
from tests.reliability.processes import until

from segkit.runs.files import read_json, sha256
from segkit.runs.manifest import MANIFEST

pytestmark = pytest.mark.alone

# A checkpoint after each step; averaged weights and early stopping, so that their state is in it.
SETTINGS = ("checkpoint.every_s=0.001", "trainer.ema_decay=0.9", "early_stopping.patience=9")
SETTINGS += ("early_stopping.warmup_epochs=0", "trainer.log_every_n_steps=1")
WRITE = {"checkpoint", "index"}
SLOW_S = 0.01
"""Added to each of the fsyncs of a checkpoint, so that a kill often falls between them."""


def fingerprint(run: Path) -> dict[str, str]:
    """sha256 of everything that must be the same, by its name."""
    checkpoints = run / "checkpoints"
    newest = max(checkpoints.glob("step-*"))
    # The manifest also names the run, which is another one; of it, what the checkpoint stands for.
    files = [path for path in newest.iterdir() if path.name != MANIFEST]
    files += [checkpoints / "last.json", checkpoints / "best.json"]
    files += [run / name for name in ("metrics.jsonl", "per_case.csv", "curves.png")]
    entry = json.dumps(read_json(newest / MANIFEST)["entry"])
    return {"entry": entry, **{str(path.relative_to(run)): sha256(path) for path in files}}


@pytest.fixture
def lives(forks, train_argv, tmp_path):
    """Factory: kill a run as planned, a life each, then let it end; returns the run and the phases of its deaths."""

    def live(name: str, plan: list[str], *overrides: str, seconds: float, rng: np.random.Generator):
        argv, output = train_argv(name, *SETTINGS, *overrides), tmp_path / f"output-{name}"
        deaths: Counter[str] = Counter()
        for number, target in enumerate(plan):
            marker = tmp_path / f"{name}-{number}.phase"
            child = forks.start(marked_train, marker, SLOW_S, *argv, output=output)
            if target == "anywhere":
                time.sleep(rng.uniform(0, seconds))
            else:
                time.sleep(rng.uniform(0, 0.2))
                until(lambda m=marker, t=target, c=child: phase_of(m) == t or not c.running(), within=60, every=0.001)
                time.sleep(rng.uniform(0, 6 * SLOW_S))
            child.kill()
            code = child.wait()
            assert code in (0, -9), child.stderr
            if code == -9:
                deaths[phase_of(marker) or "start"] += 1
        last = forks.start(marked_train, tmp_path / f"{name}.phase", 0.0, *argv, output=output)
        assert last.wait() == 0, last.stderr
        return tmp_path / "runs" / name, deaths

    return live


@pytest.fixture
def uninterrupted(lives):
    """What the run that nobody kills ends with, and how long it takes."""
    started = time.monotonic()
    run, _ = lives("whole", [], seconds=0.0, rng=np.random.default_rng(0))
    return fingerprint(run), time.monotonic() - started


def test_killed_in_this_process_alone(lives, uninterrupted, size):
    expected, seconds = uninterrupted
    rng = np.random.default_rng(1)
    plans = [["anywhere", "checkpoint", "validation", "checkpoint"], ["step", "checkpoint", "anywhere", "journal"]]
    deaths: Counter[str] = Counter()
    for number in range(size(1, 27)):
        run, died = lives(f"killed-{number}", plans[number % 2], seconds=seconds, rng=rng)
        deaths += died
        assert fingerprint(run) == expected, deaths
    sys.stdout.write(f"{deaths.total()} kills, {sum(deaths[k] for k in WRITE)} within a write: {dict(deaths)}\n")
    assert deaths.total() >= size(3, 100)
    assert sum(deaths[phase] for phase in WRITE) >= size(1, 10)


def test_killed_with_loader_processes(lives, uninterrupted, size):
    expected, seconds = uninterrupted
    rng = np.random.default_rng(2)
    deaths: Counter[str] = Counter()
    for number in range(size(1, 12)):
        plan = size(["step", "checkpoint"], ["anywhere", "step", "checkpoint"])
        workers = f"data.workers={size(1, 2)}"
        run, died = lives(f"workers-{number}", plan, workers, seconds=seconds + 2, rng=rng)
        deaths += died
        assert fingerprint(run) == expected, deaths
    sys.stdout.write(f"{deaths.total()} kills, {sum(deaths[k] for k in WRITE)} within a write: {dict(deaths)}\n")
    assert deaths.total() >= size(2, 30)


@pytest.mark.slow
def test_killed_while_mlflow_is_written(lives, uninterrupted, tmp_path, size):
    expected, seconds = uninterrupted
    rng = np.random.default_rng(3)
    deaths: Counter[str] = Counter()
    for number in range(size(1, 6)):
        plan = ["anywhere", "checkpoint", "end"]
        run, died = lives(f"tracked-{number}", plan, "tracking=mlflow", seconds=seconds + 2, rng=rng)
        deaths += died
        assert fingerprint(run) == expected, deaths
    sys.stdout.write(f"{deaths.total()} kills: {dict(deaths)}\n")
    database = sqlite3.connect(tmp_path / "runs" / "mlflow.db")
    try:
        runs = database.execute("SELECT name, status, run_uuid FROM runs").fetchall()
        assert sorted(name for name, *_ in runs) == [f"tracked-{k}" for k in range(size(1, 6))]
        assert {status for _, status, _ in runs} == {"FINISHED"}
        twice = "SELECT run_uuid, key, step FROM metrics GROUP BY run_uuid, key, step HAVING COUNT(*) > 1"
        assert database.execute(twice).fetchall() == []
        # What each run holds is one and the same, apart from what the clock says.
        points = "SELECT key, step, value FROM metrics WHERE run_uuid = ? AND key NOT LIKE 'time/%' "
        points += "AND key NOT LIKE 'memory/%' ORDER BY key, step"
        assert len({tuple(database.execute(points, (run_id,)).fetchall()) for *_, run_id in runs}) == 1
    finally:
        database.close()
