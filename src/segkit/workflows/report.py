"""`report`: writes report.html of a run or a sweep."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segkit.reporting.report import write_report
from segkit.reporting.sweep_report import write_sweep_report
from segkit.runs.locate import open_run
from segkit.runs.sweep import open_sweep


def run(config: Mapping[str, Any]) -> Path:
    """Write the report and print where it is.

    Args:
        config: `run` is the folder of a run, or one of runs, `output` the file to write or None.

    Raises:
        UsageError: The folder is no run and holds none.
    """
    output = Path(config["output"]).expanduser().absolute() if config.get("output") else None
    sweep = open_sweep(config["run"])
    path = (
        write_report(open_run(config["run"]), output=output)
        if sweep is None
        else write_sweep_report(sweep, output=output)
    )
    print(path)
    return path
