"""The rehearsal: a few real steps, a validation and a checkpoint, timed and thrown away before a run begins.

What it measures is decided upon once and written into plan.json: how many steps fit into `trainer.budget`. The run
itself then begins from its seed as if there had been no rehearsal, so that the stored `max_steps` makes it again.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from segkit.callbacks.progress import EpochLines
from segkit.callbacks.stop_watch import StopWatch
from segkit.data.pipeline import Prepared
from segkit.networks.compilation import compile_pays
from segkit.planning.budget import Tempo, seconds, steps_within
from segkit.planning.device import DeviceFacts
from segkit.planning.ladder import LADDER
from segkit.planning.make_plan import of_length
from segkit.planning.plan import Plan
from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json, remove_tree, write_json
from segkit.workflows.components import build_components
from segkit.workflows.fitting import fit

SHARE = 0.03
"""Share of the budget that steps are timed for, once they have settled."""
ENDING_S = 3.0
"""Seconds that the end of a run takes beside one more validation: pictures, curves, report."""
_FOR_S = 3.0
"""Seconds that steps are timed for where there is no budget."""
_SLOW_STEP_S = 1.0
"""A run whose steps, were they as slow as this, would not repay compiling, is not timed for it."""
_ENDLESS = 1_000_000
_CASES = 8
"""Tuning cases that are validated for the clock; the time of all is in proportion."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Budget:
    """What a run was given, and what was made of it.

    Args:
        budget_s: Seconds, all lives together.
        ending_s: Of these, kept for the end.
        max_steps: Steps by plan.
        tempo: What was timed.
    """

    budget_s: float
    ending_s: float
    max_steps: int
    tempo: Tempo

    def write(self, run: RunDirectory) -> None:
        """Into the run folder."""
        write_json(run.budget, asdict(self))

    @classmethod
    def read(cls, run: RunDirectory) -> "Budget | None":
        """What `write` has written; None where there is none."""
        if not run.budget.is_file():
            return None
        record = read_json(run.budget)
        return cls(**{**record, "tempo": Tempo(**record["tempo"])})


def worth_timing(config: Mapping[str, Any], plan: Plan, device: DeviceFacts) -> bool:
    """Whether something has to be timed before a run begins: its length, or whether compiling pays.

    The latter where compiling may pay at all: on a device that gains by it, in a run of thousands of steps.
    """
    if config["trainer"]["budget"] is not None:
        return True
    asked = config["plan"]["compile"] is not None or config["trainer"]["devices"] != 1
    return not asked and compile_pays(device.kind, plan.max_steps, _SLOW_STEP_S)[0]


def measured(
    plan: Plan,
    config: Mapping[str, Any],
    *,
    device: DeviceFacts,
    prepared: Prepared,
    loss: torch.nn.Module,
    run: RunDirectory,
    spent_s: Callable[[], float],
) -> Plan:
    """The plan with what had to be timed: its length by `trainer.budget`, and whether to compile.

    Args:
        plan: Everything else.
        config: Resolved configuration.
        device: Where it trains.
        prepared: Training and tuning cases.
        loss: Of one level.
        run: The run folder; gets budget.json.
        spent_s: Seconds that the run has taken so far.

    Raises:
        UsageError: The budget is over already.
        SegkitError: What ends a training ends a rehearsal.
    """
    given = config["trainer"]["budget"]
    for_s = _FOR_S if given is None else SHARE * seconds(given)
    folder = run.path / ".rehearsal"
    tempo = rehearse(plan, config, device=device, prepared=prepared, loss=loss, folder=folder, for_s=for_s)
    if given is not None:
        plan, budget = fit_to_budget(plan, config, tempo=tempo, spent_s=spent_s())
        budget.write(run)
    if config["plan"]["compile"] is None:
        pays, because = compile_pays(device.kind, plan.max_steps, tempo.step_s)
        plan = replace(plan, compile=pays, reasons={**plan.reasons, "compile": because})
    return plan


def fit_to_budget(plan: Plan, config: Mapping[str, Any], *, tempo: Tempo, spent_s: float) -> tuple[Plan, Budget]:
    """The plan with as many epochs and steps as fit into `trainer.budget`.

    Args:
        plan: Everything else.
        config: Resolved configuration.
        tempo: What was timed.
        spent_s: Seconds that the run has taken so far.

    Raises:
        UsageError: The budget is over already.
    """
    budget_s = seconds(config["trainer"]["budget"])
    ending_s = ENDING_S + tempo.validation_s
    shortest = LADDER[plan.name].steps_per_epoch
    every = config["validation"]["every_n_epochs"]
    steps = steps_within(
        budget_s, tempo, spent_s=spent_s, ending_s=ending_s, shortest=shortest, every_at_least=every or 1
    )
    because = (
        f"trainer.budget={config['trainer']['budget']}: {steps} steps of {tempo.step_s:.3f} s as timed over "
        f"{tempo.steps}; trainer.max_steps={steps} makes this run again"
    )
    reasons = {**plan.reasons, "max_epochs": because, "steps_per_epoch": because}
    if every is None:
        reasons["validation_every_n_epochs"] = "about ten times a run whose length is given in steps"
    plan = of_length(plan, steps, shortest=shortest, keep=() if every is None else ("validation_every_n_epochs",))
    plan = replace(plan, reasons=reasons)
    _logger.info("%s; %.1f s were gone, %.1f s are kept for the end", because, spent_s, ending_s)
    return plan, Budget(budget_s, ending_s, steps, tempo)


def rehearse(
    plan: Plan,
    config: Mapping[str, Any],
    *,
    device: DeviceFacts,
    prepared: Prepared,
    loss: torch.nn.Module,
    folder: Path,
    for_s: float,
) -> Tempo:
    """Train for so many seconds, validate and store once, in a folder that is removed again.

    Raises:
        SegkitError: What ends a training.
    """
    cases = prepared.tuning[:_CASES]
    watch = StopWatch(for_s)
    if folder.exists():  # a life that was killed in its rehearsal has left one
        remove_tree(folder)
    folder.mkdir(parents=True)
    try:
        parts = build_components(
            {**config, "validation": {**config["validation"], "where": "here"}},
            plan=replace(plan, steps_per_epoch=_ENDLESS, max_epochs=1, validation_every_n_epochs=1),
            device=device,
            prepared=replace(prepared, tuning=cases),
            loss=loss,
            run=RunDirectory(folder),
            max_epochs=1,
            callbacks=[watch],
        )
        trainer: Any = parts.trainer
        trainer.callbacks = [each for each in trainer.callbacks if not isinstance(each, EpochLines)]
        fit(parts, checkpoint=None)
    finally:
        remove_tree(folder)
    scale = len(prepared.tuning) / len(cases) if cases else 0.0
    return Tempo(watch.step_s, watch.epoch_s, scale * watch.validation_s, watch.steps)
