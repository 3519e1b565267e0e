"""Will the training fit? Predicted and held against what is free before the first step, not found out by it."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from segkit.configuration import build_network, build_optimizer, build_recipe
from segkit.data.pipeline import Opened, Prepared, plan_dataset
from segkit.errors import OutOfMemory, SegkitError
from segkit.planning.device import DeviceFacts
from segkit.planning.free_memory import free_bytes
from segkit.planning.plan import Plan
from segkit.planning.training_memory import (
    CannotPredict,
    TrainingMemory,
    can_recompute,
    predict_training_memory,
    size_text,
)
from segkit.workflows.out_of_memory import Remedy, mend_text, remedies

TIGHT = 0.9
"""Share of the free memory above which a warning is given: what is not predicted may take the rest."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemoryFacts:
    """What is told about memory.

    Args:
        text: What training is predicted to take and what is free, or why it is not predicted.
        warnings: One line each.
    """

    text: str
    warnings: Sequence[str] = ()


def require_memory(
    config: Mapping[str, Any],
    plan: Plan,
    network: nn.Module,
    *,
    loss: nn.Module,
    opened: Opened,
    prepared: Prepared,
    device: DeviceFacts,
    started: int = 1,
    joined: tuple[int, int] = (1, 1),
) -> MemoryFacts:
    """Predict what training will take, and refuse to begin where it is more than is free.

    Args:
        config: Resolved configuration; neither is done where its `trainer.check_memory` is false.
        plan: The run's plan.
        network: What is trained; stays as it is.
        loss: Of one level.
        opened: The data set, for the plans of other rungs.
        prepared: Training and tuning cases.
        device: Where it trains.
        started: Processes that this one starts to train; it trains by itself where that is 1.
        joined: Processes that were started by hand, in all and on this machine.

    Raises:
        OutOfMemory: More is predicted than is free; names what helps, with what training would take then.
    """
    if not config["trainer"]["check_memory"]:
        return MemoryFacts("not predicted (trainer.check_memory=false)")
    world, here = max(started, joined[0]), max(started, joined[1])
    asked = _Question(config, network, loss, prepared, device, world)
    try:
        memory = asked.answer(plan)
    except CannotPredict as error:
        _logger.info("the memory of a step is not predicted: %s", error)
        return MemoryFacts(f"not predicted ({error})")
    # Ranks share the machine's memory, not a GPU's.
    needed = _of_a_rank(memory, world) * (here if device.kind == "cpu" else 1)
    free = _free(device, started=started)
    if free is None:
        return MemoryFacts(f"predicted {memory.text()}")
    if started == 1:
        free += _resident(network, device)  # its weights are there already
    text = f"predicted {memory.text()} of {size_text(free)} free" + (f", {here} times" if needed > memory.peak else "")
    if needed > free:
        found = remedies(
            plan,
            "training",
            device=device.kind,
            accumulate=config["trainer"]["accumulate"],
            recompute=can_recompute(network) is not None and not config["trainer"]["gradient_checkpointing"],
        )
        raise OutOfMemory(
            f"Training would not fit into the memory of {'this machine' if device.kind == 'cpu' else device.name}.",
            where=f"plan {plan.name}, patch {' x '.join(map(str, plan.patch_size))}, batch {plan.batch_size}, "
            f"{plan.precision}",
            why=f"{text}: {needed / free:.2f} times what there is",
            mend=f"{mend_text(found, device=device.kind, predicted=_Predictions(asked, opened, plan, here).of)}; "
            "trainer.check_memory=false begins all the same",
        )
    if needed > TIGHT * free:
        share = f"{needed / free:.0%}"
        return MemoryFacts(text, [f"training is predicted to take {share} of the memory that is free"])
    return MemoryFacts(text)


@dataclass(frozen=True)
class _Question:
    """All that a prediction depends on but the plan."""

    config: Mapping[str, Any]
    network: nn.Module
    loss: nn.Module
    prepared: Prepared
    device: DeviceFacts
    world: int

    def answer(self, plan: Plan, *, network: nn.Module | None = None, recompute: bool = False) -> TrainingMemory:
        """The memory of one process under a plan."""
        config = self.config
        network = self.network if network is None else network
        on = recompute or bool(config["trainer"]["gradient_checkpointing"])
        return predict_training_memory(
            network,
            self.loss,
            replace(plan, batch_size=-(-plan.batch_size // self.world)),
            optimizer=build_optimizer(config, plan, trust=True),
            device=self.device.kind,
            averaged=plan.ema_decay > 0,
            recompute=on if can_recompute(network) is not None else None,
            source_size=build_recipe(config, trust=True).source_size(plan.patch_size),
            largest_image=max((case.shape for case in self.prepared.tuning), key=math.prod, default=None),
        )


@dataclass(frozen=True)
class _Predictions:
    """What training would take with a remedy, on the whole machine or GPU."""

    asked: _Question
    opened: Opened
    plan: Plan
    here: int

    def of(self, remedy: Remedy) -> int | None:
        """Bytes; None where that cannot be told."""
        asked, network, plan = self.asked, None, remedy.plan
        try:
            if remedy.rung:
                config = {**asked.config, "plan": {**asked.config["plan"], "name": remedy.rung}}
                plan = plan_dataset(self.opened, config, asked.device)
                network = build_network(asked.config, plan, trust=True, restored=True)
            memory = asked.answer(plan or self.plan, network=network, recompute=remedy.recompute)
        except (CannotPredict, SegkitError) as error:
            _logger.info("what %s would take is not predicted: %s", remedy.keys, error)
            return None
        return _of_a_rank(memory, asked.world) * (self.here if asked.device.kind == "cpu" else 1)


def _of_a_rank(memory: TrainingMemory, world: int) -> int:
    """Ranks exchange their gradients through buckets that hold them once more."""
    return memory.peak + (memory.gradients if world > 1 else 0)


def _free(device: DeviceFacts, *, started: int) -> int | None:
    if device.kind == "cuda" and started > 1:
        return device.memory_bytes  # looking closer would take some of what those need that are started
    return free_bytes(device.kind)


def _resident(network: nn.Module, device: DeviceFacts) -> int:
    return sum(
        tensor.numel() * tensor.element_size()
        for tensor in network.state_dict().values()
        if tensor.device.type == device.kind
    )
