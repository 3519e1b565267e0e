"""`plan`: show the plan of a data set, each value with its reason, and the network; opens no test file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from segkit.configuration import build_loss, build_network, build_optimizer
from segkit.data.pipeline import open_dataset, plan_dataset
from segkit.networks.batch_statistics import warn_of_few_values
from segkit.networks.describe import describe
from segkit.planning.device import DeviceFacts, device_facts
from segkit.planning.plan import Plan
from segkit.planning.text import describe_plan
from segkit.planning.training_memory import CannotPredict, predict_training_memory


def run(config: Mapping[str, Any]) -> Plan:
    """Print the plan, and write it where `config["output"]` says so.

    Args:
        config: Resolved configuration.

    Returns:
        The plan.
    """
    opened = open_dataset(config)
    device = device_facts(config["trainer"]["accelerator"])
    plan = plan_dataset(opened, config, device)
    cases = ", ".join(f"{role} {cases} of {people} people" for role, (cases, people) in opened.people.items())
    print(f"{opened.dataset.name}: {cases} (planned from train and tuning only)")
    print(describe_plan(plan))
    print(_network_text(config, plan, device))
    output = config.get("output")
    if output:
        path = Path(output).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(plan.to_json(), indent=2) + "\n")
        print(f"written to {path.absolute()}")
    return plan


def _network_text(config: Mapping[str, Any], plan: Plan, device: DeviceFacts) -> str:
    """The network that the plan makes, and the memory in which it trains, without making either."""
    with torch.device("meta"):
        network = build_network(config, plan, trust=True, restored=True)
    told = describe(network, in_channels=plan.in_channels, patch_size=plan.patch_size).text()
    try:
        memory = predict_training_memory(
            network,
            build_loss(config, plan, trust=True),
            plan,
            optimizer=build_optimizer(config, plan, trust=True),
            device=device.kind,
            averaged=plan.ema_decay > 0,
        ).text()
    except CannotPredict as error:
        memory = f"not predicted ({error})"
    few = warn_of_few_values(
        network, in_channels=plan.in_channels, batch_size=plan.batch_size, patch_size=plan.patch_size
    )
    return "\n".join(
        [f"network: {type(network).__name__}, {told}", f"memory: {memory}", *(f"warning: {line}" for line in few)]
    )
