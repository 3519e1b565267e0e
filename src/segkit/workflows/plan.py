"""`plan`: show the plan of a data set, each value with its reason; opens no test file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segkit.data.pipeline import open_dataset, plan_dataset
from segkit.planning.device import device_facts
from segkit.planning.plan import Plan
from segkit.planning.text import describe_plan


def run(config: Mapping[str, Any]) -> Plan:
    """Print the plan, and write it where `config["output"]` says so.

    Args:
        config: Resolved configuration.

    Returns:
        The plan.
    """
    opened = open_dataset(config)
    plan = plan_dataset(opened, config, device_facts(config["trainer"]["accelerator"]))
    cases = ", ".join(f"{role} {cases} of {people} people" for role, (cases, people) in opened.people.items())
    print(f"{opened.dataset.name}: {cases} (planned from train and tuning only)")
    print(describe_plan(plan))
    output = config.get("output")
    if output:
        path = Path(output).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(plan.to_json(), indent=2) + "\n")
        print(f"written to {path.absolute()}")
    return plan
