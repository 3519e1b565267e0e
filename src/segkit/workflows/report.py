"""`report`: writes report.html of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segkit.reporting.report import write_report
from segkit.runs.locate import open_run


def run(config: Mapping[str, Any]) -> Path:
    """Write the report and print where it is.

    Args:
        config: `run` is the folder, `output` the file to write or None.

    Raises:
        UsageError: The folder is no run.
    """
    output = Path(config["output"]).expanduser().absolute() if config.get("output") else None
    path = write_report(open_run(config["run"]), output=output)
    print(path)
    return path
