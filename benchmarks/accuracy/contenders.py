"""Who takes part, and one run of each: the real command, its time from outside, its masks scored by the one scorer."""

import csv
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from benchmarks import machine
from benchmarks.accuracy.schedule import steps_within
from benchmarks.accuracy.scoring import CaseScore, read_table, score_folder, write_table
from benchmarks.accuracy.split import MEASURE, TUNE

Name = Literal["segkit", "peer-same-chance", "peer-default"]
NAMES: tuple[Name, ...] = get_args(Name)
Stage = Literal["measure", "tune"]
MIRRORED = "-mirrored"
"""Appended to a peer's name where its prediction is averaged over mirror images, as nnU-Net does by default."""
_SPLITS: dict[Stage, Path] = {"measure": MEASURE, "tune": TUNE}
_PEER_MODES = {"peer-same-chance": "same_chance", "peer-default": "default"}
_TIMED_STEPS = {"peer-same-chance": 30, "peer-default": 10}


@dataclass(frozen=True)
class Course:
    """What all runs share.

    Args:
        data: nnU-Net raw folder with groups.csv.
        stage: `measure` reads the test people of this measurement, `tune` those that recipes are chosen on.
        workspace: Folder of runs, masks and prepared data.
        results: Folder of the tables that are kept.
        peers: Interpreter of an environment with nnunetv2.
        overrides: Added to segkit's command.
    """

    data: Path
    stage: Stage
    workspace: Path
    results: Path
    peers: str
    overrides: tuple[str, ...] = ()

    @property
    def split(self) -> Path:
        """The file of roles."""
        return _SPLITS[self.stage]

    @property
    def journal(self) -> Path:
        """One line a scored run: each is one reading of the test people."""
        return self.results / "runs.csv"


@dataclass(frozen=True)
class Run:
    """One training of one contender.

    Args:
        contender: Who.
        budget: Minutes asked, as `5m`.
        seed: Of the training.
        steps: A fixed number of steps instead; None: as many as the budget holds.
    """

    contender: Name
    budget: str
    seed: int
    steps: int | None = None

    @property
    def name(self) -> str:
        """Folder and table."""
        return f"{self.contender}-{self.budget}-s{self.seed}"

    @property
    def seconds(self) -> float:
        """The budget in seconds."""
        return budget_seconds(self.budget)


@dataclass(frozen=True)
class Entry:
    """One line of the journal.

    Args:
        contender: Who.
        budget: Minutes asked.
        seed: Of the training.
        steps: Training steps taken.
        minutes: Time of the training on idle cores.
        timed: `spawn to exit`, or `steps x idle step` where the steps were fixed by an idle timing.
        dice: Mean foreground Dice; of a peer without mirroring.
        overrides: Added to the command.
        commit: Of this repository.
        scored: When, UTC.
    """

    contender: str
    budget: str
    seed: int
    steps: int
    minutes: float
    timed: str
    dice: float
    overrides: str
    commit: str
    scored: str


def test_cases(course: Course) -> list[str]:
    """Who is scored."""
    cases: list[str] = json.loads(course.split.read_text())["test"]
    return cases


def budget_seconds(text: str) -> float:
    """Seconds of `30s`, `5m` or `1h`.

    Raises:
        ValueError: It is none of these.
    """
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    if text[-1:] not in units:
        raise ValueError(f"a budget is written as 30s, 5m or 1h, not {text!r}")
    return float(text[:-1]) * units[text[-1]]


def table_path(course: Course, name: str, run: Run) -> Path:
    """The kept per-case table of a run; `name` is the contender, or a peer with `MIRRORED`."""
    return course.results / f"{name}-{run.budget}-s{run.seed}.csv"


def run_once(course: Course, run: Run) -> bool:
    """Train, predict, score and keep the table, unless it is there already.

    Returns:
        Whether anything was done.
    """
    kept = table_path(course, run.contender, run)
    if kept.is_file():
        print(f"{run.name}: kept, {kept}", flush=True)
        return False
    print(f"{run.name} ...", flush=True)
    course.results.mkdir(parents=True, exist_ok=True)
    entry, table = _run_segkit(course, run) if run.contender == "segkit" else _run_peer(course, run)
    _append(course.journal, entry)
    write_table(kept, table)
    print(f"{run.name}: {entry.steps} steps, {entry.minutes:.2f} min, foreground Dice {entry.dice:.4f}", flush=True)
    return True


def train_command(course: Course, run: Run) -> list[str]:
    """What trains segkit; its cache is its own, so that checking, planning and preparing are in its time."""
    length = f"trainer.budget={run.budget}" if run.steps is None else f"trainer.max_steps={run.steps}"
    return [
        *(sys.executable, "-m", "segkit.train", f"data.root={course.data}", f"data.split.file={course.split}"),
        *(length, f"seed={run.seed}", f"run_name={run.name}", f"paths.runs={course.workspace / 'segkit' / run.name}"),
        *course.overrides,
    ]


def evaluate_command(course: Course, run: Run) -> list[str]:
    """What predicts and scores the test people with segkit; its masks go to the one scorer."""
    folder = course.workspace / "segkit" / run.name / run.name
    return [
        *(sys.executable, "-m", "segkit.evaluate", f"run={folder}", "subset=test"),
        *("save_predictions=true", "overlays=0"),
    ]


def peer_command(course: Course, contender: Name, *, seed: int, length: Sequence[str], out: Path) -> list[str]:
    """What trains and predicts with nnU-Net's classes, but for its loader processes."""
    return [
        *(course.peers, "-m", "benchmarks.accuracy.nnunet_peer", "--data", str(course.data)),
        *("--split", str(course.split), "--mode", _PEER_MODES[contender], "--seed", str(seed), *length),
        *("--work", str(course.workspace / "nnunet"), "--out", str(out)),
    ]


def timing(course: Course, contender: Name) -> dict[str, float]:
    """Start-up and seconds a step of a peer, measured once on idle cores and kept.

    One and two loader processes are tried, and the faster is taken.
    """
    kept = course.results / f"timing-{contender}.json"
    if not kept.is_file():
        found = []
        for workers in (1, 2):
            out = course.workspace / "timing" / f"{contender}-{workers}"
            length = ["--time-steps", str(_TIMED_STEPS[contender]), "--workers", str(workers)]
            _call(peer_command(course, contender, seed=0, length=length, out=out))
            found.append(json.loads((out / "timing.json").read_text()))
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(min(found, key=lambda one: one["per_step"]) | {"tried": found}, indent=1) + "\n")
    record: dict[str, float] = json.loads(kept.read_text())
    return record


def journal(course: Course) -> list[Entry]:
    """All scored runs, in the order they were scored."""
    if not course.journal.is_file():
        return []
    with course.journal.open(newline="") as rows:
        return [_entry(row) for row in csv.DictReader(rows)]


def _run_segkit(course: Course, run: Run) -> tuple[Entry, list[CaseScore]]:
    folder = course.workspace / "segkit" / run.name / run.name
    timed = folder.parent / "minutes.json"
    if not timed.is_file():
        # What an interrupted run left would be resumed, and part of its time not counted.
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.parent.mkdir(parents=True)
        minutes = _call(train_command(course, run)) / 60
        timed.write_text(json.dumps(minutes))
    _call(evaluate_command(course, run))
    table = _score(course, folder / "evaluation" / "test" / "predictions")
    # Not the plan's: a run whose steps became slower than they were timed ends earlier.
    steps = json.loads((folder / "checkpoints" / "last.json").read_text())["step"]
    entry = _written(course, run, steps=steps, minutes=json.loads(timed.read_text()), table=table)
    return replace(entry, timed="spawn to exit"), table


def _run_peer(course: Course, run: Run) -> tuple[Entry, list[CaseScore]]:
    out, found = course.workspace / "peers" / run.name, timing(course, run.contender)
    steps = run.steps or steps_within(run.seconds, start_up=found["start_up"], per_step=found["per_step"])
    if not (out / "run.json").is_file():
        length = ["--steps", str(steps), "--workers", str(int(found["workers"]))]
        _call(peer_command(course, run.contender, seed=run.seed, length=length, out=out))
    taken = json.loads((out / "run.json").read_text())
    # The masks of a run that was started by hand are those of these settings, or nothing is kept of it.
    if (taken["mode"], taken["seed"], taken["steps"]) != (_PEER_MODES[run.contender], run.seed, steps):
        raise SystemExit(f"{out} holds another run: {taken['mode']}, seed {taken['seed']}, {taken['steps']} steps")
    mirrored = score_folder(out / "labels_mirrored", course.data, test_cases(course))
    write_table(table_path(course, run.contender + MIRRORED, run), mirrored)
    table = _score(course, out / "labels_plain")
    minutes = (found["start_up"] + taken["steps"] * found["per_step"]) / 60
    entry = _written(course, run, steps=taken["steps"], minutes=minutes, table=table)
    return replace(entry, timed="steps x idle step"), table


def _written(course: Course, run: Run, *, steps: int, minutes: float, table: Sequence[CaseScore]) -> Entry:
    return Entry(
        contender=run.contender,
        budget=run.budget,
        seed=run.seed,
        steps=steps,
        minutes=round(minutes, 3),
        timed="",
        dice=round(sum(row.mean for row in table) / len(table), 6),
        overrides=" ".join(course.overrides) if run.contender == "segkit" else "",
        commit=machine.commit(),
        scored=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _score(course: Course, masks: Path) -> list[CaseScore]:
    return score_folder(masks, course.data, test_cases(course))


def _call(command: Sequence[str]) -> float:
    """Run a command, its words beside ours; seconds from spawn to exit.

    Raises:
        SystemExit: It failed.
    """
    print(f"  $ {shlex.join(command)}", flush=True)
    began = time.monotonic()
    code = subprocess.run(command, check=False).returncode
    seconds = time.monotonic() - began
    if code:
        raise SystemExit(f"ended with {code}: {shlex.join(command)}")
    return seconds


def _append(path: Path, entry: Entry) -> None:
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Entry)], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(asdict(entry))


def _entry(row: dict[str, str]) -> Entry:
    kinds = {"seed": int, "steps": int, "minutes": float, "dice": float}
    return Entry(**{key: kinds.get(key, str)(value) for key, value in row.items()})


def read_tables(course: Course, name: str, budget: str) -> dict[int, list[CaseScore]]:
    """The kept tables of a contender and budget, by seed."""
    paths = course.results.glob(f"{name}-{budget}-s*.csv")
    return {int(path.stem.rsplit("-s", 1)[1]): read_table(path) for path in sorted(paths)}
