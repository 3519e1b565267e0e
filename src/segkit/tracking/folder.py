"""What a run folder, or a sweep's, has for its copy: files, the ending, the selected checkpoint. Imports no MLflow."""

import hashlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from segkit.evaluation.comparison_files import COMPARISON, DIFFERENCES, compared_rows
from segkit.runs import calibration, postprocessing
from segkit.runs.directory import RunDirectory
from segkit.runs.manifest import Entry, checkpoint_path, checkpoint_steps
from segkit.runs.results import ResultsDirectory
from segkit.runs.scores import read_entry
from segkit.runs.sweep import SweepDirectory
from segkit.tracking.journal import CLOCK, read_rows

Ending = Literal["FINISHED", "FAILED", "KILLED"]
_ENDINGS: dict[str, Ending] = {"finished": "FINISHED", "failed": "FAILED", "preempted": "KILLED"}


def ending_of(run: RunDirectory) -> tuple[Ending, str]:
    """MLflow's word for how the run ended, and why. Only for a run that nobody holds.

    A preempted run is KILLED, and so is one that was left without an end.
    """
    status = run.load_status()
    state = str(status.get("state", ""))
    if state not in _ENDINGS:
        return "KILLED", "left without an end"
    return _ENDINGS[state], str(status.get("reason") or state)


def is_running(run: RunDirectory) -> bool:
    """Whether the run is being trained now, and not just writing its end."""
    return run.load_status().get("state") == "running" and run.holder() is not None


def files_at_start(run: RunDirectory) -> list[Path]:
    """Files of a run that are there from its start."""
    paths = (run.config, run.plan, run.split, run.findings, run.env)
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def files_of(run: RunDirectory) -> list[tuple[Path, str]]:
    """Every file that goes to MLflow and its name there; no links, which may lead out of the folder."""
    found = [*files_at_start(run), run.per_case, run.curves, run.report, *sorted(run.overlays.rglob("*"))]
    return _named([*found, *_results(run)], run.path)


def files_of_sweep(sweep: SweepDirectory) -> list[tuple[Path, str]]:
    """Every file of a sweep's own, besides those of its runs, that goes to MLflow and its name there."""
    return _named([sweep.multirun, sweep.report, *_results(sweep)], sweep.path)


def selected(run: RunDirectory) -> tuple[Path, Entry, str] | None:
    """Folder, entry and reason of the checkpoint that a finished run stands for; None where there is none.

    Raises:
        StorageError: The checkpoint is damaged.
    """
    status = run.load_status()
    for step in checkpoint_steps(run.checkpoints):
        folder = checkpoint_path(run.checkpoints, step)
        if folder.name == status.get("selected"):
            return folder, read_entry(folder), str(status.get("selected_because", ""))
    return None


def times(run: RunDirectory) -> dict[int, int]:
    """When the values of each n were measured, ms since 1970: the first time, which stays the same for ever."""
    found: dict[int, int] = {}
    for row in read_rows(run.timings):
        if row.key == CLOCK and math.isfinite(row.value):
            found.setdefault(row.n, int(row.value * 1000))
    return found


def fingerprint(run: RunDirectory) -> str:
    """Changes whenever a file changes that the copy is made from."""
    paths = [run.metrics, run.timings, run.status, run.tracking, *(path for path, _ in files_of(run))]
    return _fingerprint(paths, run.path)


def fingerprint_of_sweep(sweep: SweepDirectory) -> str:
    """Changes whenever a file changes that the parent's copy is made from: its own, and how its runs have ended."""
    paths = [*(path for path, _ in files_of_sweep(sweep)), *(run.status for run in sweep.runs)]
    return _fingerprint([*paths, *(run.mlflow for run in sweep.runs)], sweep.path)


def runs_below(root: Path) -> Iterator[RunDirectory]:
    """Every run below `root`, those of sweeps too."""
    for path in sorted([*root.glob("*/config.yaml"), *root.glob("*/*/config.yaml")]):
        yield RunDirectory(path.parent)


def _results(folder: ResultsDirectory) -> Iterator[Path]:
    """What verbs have written after the training: tables of evaluations, rules for masks, a calibration."""
    for summary in sorted(folder.evaluation.glob("*/summary.json")):
        for row in (summary.parent, *compared_rows(summary.parent)):
            yield from (row / summary.name, row / "per_case.csv", row / "nnunet" / summary.name)
            yield from (row / COMPARISON, row / DIFFERENCES)
    yield from (folder.path / name for name in (postprocessing.FILE, calibration.FILE, calibration.TABLE))


def _named(paths: Iterable[Path], root: Path) -> list[tuple[Path, str]]:
    """Those that are files, no links, and not hidden, with their names below `root`."""
    named = [(path, path.relative_to(root)) for path in paths if path.is_file() and not path.is_symlink()]
    return [(path, name.as_posix()) for path, name in named if not any(part.startswith(".") for part in name.parts)]


def _fingerprint(paths: Iterable[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        if path.is_file():
            facts = path.stat()
            digest.update(f"{path.relative_to(root)} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()
