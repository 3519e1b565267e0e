"""`doctor`: looks at this machine and says what would hinder a training."""

import json
import textwrap
from collections.abc import Sequence
from typing import Any

from segkit.planning.device import device_facts, timed
from segkit.workflows.machine import Check, machine_checks

_MARKS = {"ok": "ok     ", "warning": "warning", "error": "ERROR  "}


def run(config: dict[str, Any]) -> list[Check]:
    """Look and print, as a table or as JSON.

    Args:
        config: `json`, `paths.runs` and `paths.mlflow`.

    Returns:
        What was found.

    Raises:
        SegkitError: Something is in the way of any training; after all of it was printed.
    """
    device = timed(device_facts())
    checks = machine_checks(device, config["paths"])
    if config["json"]:
        print(json.dumps({"device": device.to_json(), "checks": [check.to_json() for check in checks]}, indent=1))
    else:
        print(describe(checks))
    for check in checks:
        if check.state == "error":
            raise check.failure("This machine cannot train yet.", where=check.name, why=check.found, mend=check.mend)
    return checks


def describe(checks: Sequence[Check], *, width: int = 110) -> str:
    """One block a check: state, name, what was found, and below it what puts it right."""
    indent = max(len(check.name) for check in checks) + 11
    lines: list[str] = []
    for check in checks:
        head = f"{_MARKS[check.state]}  {check.name}"
        texts = [check.found, *([f"-> {check.mend}"] if check.mend else [])]
        wrapped = [line for text in texts for line in textwrap.wrap(text, width - indent, break_on_hyphens=False)]
        lines += [f"{head if i == 0 else '':<{indent}}{line}" for i, line in enumerate(wrapped)]
    return "\n".join(lines)
