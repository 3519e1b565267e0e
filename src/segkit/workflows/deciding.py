"""What a run is made of, decided once: at its first start from data, device and configuration, later from its folder.

A resume reads the decisions and never measures again. Of a plan only what changes no weight and no sample follows a
changed configuration: the distance of validations and the number of tiles in a pass.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from segkit.data.pipeline import Opened, open_dataset, plan_dataset
from segkit.data.splits import ROLES
from segkit.planning.device import DeviceFacts
from segkit.planning.plan import Plan
from segkit.runs.directory import RunDirectory
from segkit.runs.files import write_json
from segkit.runs.identity import hold_to_decisions
from segkit.workflows.stored import stored_plan, stored_roles

_MAY_CHANGE = frozenset(
    {
        "validation_every_n_epochs",
        "tile_batch",
        "max_epochs",
        "max_steps",
        "ema_decay",  # kept for life by its key
        "channels_last",
        "compile",
        "reasons",
    }
)
"""What a changed configuration may change, or what changes but the last digits."""


def decide(
    config: Mapping[str, Any],
    directory: RunDirectory,
    device: DeviceFacts,
    *,
    measure: Callable[[Opened, Plan], Plan] | None = None,
) -> tuple[Opened, Plan]:
    """Roles and plan: those of the run where it has them, else made now; written, with what the data's check found.

    Args:
        config: Resolved configuration.
        directory: The run folder, held by this process.
        device: What to plan for.
        measure: Decides at the first start what has to be timed for it.

    Raises:
        DataError: The data cannot be used.
        StorageError: split.json or plan.json is damaged.
        UsageError: They are not those that the run began with.
    """
    roles = stored_roles(directory) if directory.split.is_file() else None
    opened = open_dataset(config, roles=roles)
    if directory.plan.is_file():
        plan = with_present_settings(stored_plan(directory), config)
    else:
        plan = plan_dataset(opened, config, device)
        plan = measure(opened, plan) if measure is not None else plan
    kept = {key: value for key, value in plan.to_json().items() if key not in _MAY_CHANGE}
    who = {case: role for role in ROLES for case in opened.roles.of(role)}
    hold_to_decisions(directory.checkpoints, {"plan": kept, "roles": who}, run_name=directory.name)
    write_json(directory.plan, plan.to_json())
    write_json(directory.split, opened.roles.to_json())
    write_json(directory.findings, {"findings": [finding.to_json() for finding in opened.findings]})
    return opened, plan


def with_present_settings(plan: Plan, config: Mapping[str, Any]) -> Plan:
    """The same plan, with the values that the configuration gives for what may change between two lives."""
    asked = {
        "validation_every_n_epochs": config["validation"]["every_n_epochs"],
        "tile_batch": config["validation"]["tile_batch"],
        "ema_decay": config["trainer"]["ema_decay"],  # plans from before it was in them
    }
    changed = {key: value for key, value in asked.items() if value is not None and value != getattr(plan, key)}
    reasons = {**plan.reasons, **dict.fromkeys(changed, "as configured")}
    return replace(plan, **changed, reasons=reasons) if changed else plan
