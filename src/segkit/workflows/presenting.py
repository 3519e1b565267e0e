"""What follows when a verb has written results into a folder: its report, and its copy in MLflow."""

from pathlib import Path

from segkit.reporting.report import write_report
from segkit.reporting.sweep_report import write_sweep_report
from segkit.runs.directory import RunDirectory
from segkit.runs.sweep import SweepDirectory
from segkit.workflows.copying import copy_evaluation, copy_sweep_evaluation


def present(folder: Path, *, trust: bool) -> None:
    """Write report.html and send what is new; nothing for a folder that is neither a run nor one of runs.

    Args:
        folder: Of a run, or of a sweep.
        trust: Whether a tracking server is asked that only the folder names.
    """
    run, sweep = RunDirectory(folder), SweepDirectory(folder)
    if run.exists:
        write_report(run)
        copy_evaluation(run, run.load_config(), trust=trust)
    elif sweep.exists:
        write_sweep_report(sweep)
        copy_sweep_evaluation(sweep, trust=trust)
