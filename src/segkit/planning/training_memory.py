"""How much memory one training step will take, told before the first one, without running it.

    peak = weights + gradients + optimizer + batch + activations

Activations are all that lives between the start of the forward and the end of the backward pass and is none of the
others: feature maps that the backward pass will read, gradients of feature maps, what convolutions take while they run,
the loss. The step is traced on tensors without memory, with the very network, loss and optimizer that will train, in
the order in which the trainer goes about it: the last step's gradients are freed only between the two passes.

Not in it: the process itself, its libraries and its loader processes (a few hundred MB each), and on a GPU what the
allocator loses to fragmentation.
"""

import copy
import itertools
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from segkit.inference.predictor import autocast
from segkit.losses.deep_supervision import DeepSupervision
from segkit.metrics.training_dice import sample_counts
from segkit.networks.checkpointing import Recomputing, checkpoint_stages
from segkit.planning.live_bytes import CHANNELS_LAST, CUDA_BLOCK, LiveBytes, no_memory
from segkit.planning.plan import Plan
from segkit.types import ID_FIELDS, Size, Target

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]

_GB, _MB = 10**9, 10**6
_VALUE = 4
"""Bytes of a float32."""
_TRACED_BATCH = 16
_INSTANCES = 500
"""Supposed in a patch: sums over them are small beside maps of the voxels."""
_MAPS_OF_AUGMENTATION = 3
"""Images that intensity transforms hold beside the one they change."""


class CannotPredict(Exception):
    """The step cannot be traced; the message says why."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on the device where the network trains.

    Args:
        parameters: Weights and buffers; with an average of them, twice.
        gradients: One of each trained weight.
        optimizer: What the optimizer keeps from step to step.
        batch: Images and labels of a step.
        activations: The rest of what a step needs at once.
        validation: Most that lives during whole-image validation, what outlives a step included.
    """

    parameters: int
    gradients: int
    optimizer: int
    batch: int
    activations: int
    validation: int

    @property
    def step(self) -> int:
        """The most that lives during a training step."""
        return self.parameters + self.gradients + self.optimizer + self.batch + self.activations

    @property
    def peak(self) -> int:
        """The most that lives at any time."""
        return max(self.step, self.validation)

    def text(self) -> str:
        """The peak and what it is made of, for people."""
        parts = {
            "weights": self.parameters,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "batch": self.batch,
            "activations": self.activations,
        }
        if self.validation > self.step:
            parts = {"whole-image validation": self.validation, "a step": self.step}
        told = {name: short(size, self.peak) for name, size in parts.items()}
        made_of = ", ".join(f"{name} {size}" for name, size in told.items() if float(size) > 0)
        return f"{size_text(self.peak)} for training ({made_of})"


def predict_training_memory(
    network: nn.Module,
    loss: nn.Module,
    plan: Plan,
    *,
    optimizer: OptimizerFactory,
    device: str = "cpu",
    averaged: bool = False,
    recompute: bool | None = None,
    source_size: Size | None = None,
    largest_image: Size | None = None,
) -> TrainingMemory:
    """Bytes that training takes at its peak.

    Args:
        network: What will be trained; stays as it is, wherever it is.
        loss: Of one level.
        plan: Patch, batch, precision, memory format, tiles.
        optimizer: Makes the optimizer from the parameters.
        device: "cpu", "cuda" or "mps": where it will train.
        averaged: Whether an average of the weights is kept.
        recompute: Gradient checkpointing on or off; None: as the network is.
        source_size: Voxels of a patch before augmentation, by axis.
        largest_image: Voxels of the largest image that is validated on the plan's grid.

    Raises:
        CannotPredict: Network, loss or optimizer cannot be traced.
    """
    place = "cuda" if device == "cuda" and torch.cuda.is_available() else "cpu"
    block = CUDA_BLOCK if device == "cuda" else 1

    def traced(batch_size: int) -> TrainingMemory:
        return _traced(
            LiveBytes(block=block, threads=torch.get_num_threads()),
            getattr(network, "_orig_mod", network),  # of a compiled network, the one that was compiled
            loss,
            replace(plan, batch_size=batch_size),
            optimizer=optimizer,
            place=place,
            averaged=averaged,
            recompute=recompute,
            source_size=source_size or plan.patch_size,
            largest_image=largest_image if place == "cpu" else None,
        )

    state, log = torch.get_rng_state(), logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)  # the error says it, without a traceback
    try:
        if plan.batch_size <= _TRACED_BATCH:
            return traced(plan.batch_size)
        # What takes a sample at a time would be traced for long; the memory is linear in them.
        half, whole = traced(_TRACED_BATCH // 2), traced(_TRACED_BATCH)
        return _extended(half, whole, by=2 * plan.batch_size / _TRACED_BATCH - 2)
    except Exception as error:  # whatever a user's network does with a tensor that has no values
        line = str(error).strip().splitlines()
        raise CannotPredict(f"{type(error).__name__}: {line[0][:200] if line else 'no further words'}") from error
    finally:
        torch.set_rng_state(state)
        log.setLevel(level)


def _extended(one: TrainingMemory, other: TrainingMemory, *, by: float) -> TrainingMemory:
    """Beyond `other` by so many times what lies between the two."""
    pairs = ((getattr(one, each.name), getattr(other, each.name)) for each in fields(TrainingMemory))
    return TrainingMemory(*(round(last + by * (last - first)) for first, last in pairs))


def size_text(size: int) -> str:
    """Bytes for people, as GB or MB of a thousand."""
    return f"{size / _GB:.1f} GB" if size >= 0.95 * _GB else f"{max(1, round(size / _MB))} MB"


def short(size: int, whole: int) -> str:
    """In the unit of the whole."""
    return f"{size / _GB:.1f}" if whole >= 0.95 * _GB else f"{size / _MB:.0f}"


def _traced(
    live: LiveBytes,
    network: nn.Module,
    loss: nn.Module,
    plan: Plan,
    *,
    optimizer: OptimizerFactory,
    place: str,
    averaged: bool,
    recompute: bool | None,
    source_size: Size,
    largest_image: Size | None,
) -> TrainingMemory:
    pretence, modules = no_memory(), [network, DeepSupervision(loss)]
    with pretence, live:
        memo = stand_ins(modules, place=place, channels_last=plan.channels_last)
        weights = live.now
    # Outside, for a tensor that is neither parameter nor buffer is copied as it is.
    network, supervised = (copy.deepcopy(module, memo) for module in modules)
    memo.clear()
    if recompute is not None:
        checkpoint_stages(network, on=recompute)
    with pretence, live:
        image = torch.empty(plan.batch_size, plan.in_channels, *plan.patch_size, device=place)
        target = _target(plan, supervised, place)
        valid = torch.empty(plan.batch_size, 1, *plan.patch_size, dtype=torch.bool, device=place)
        batch = live.now - weights
        steps = optimizer(network.parameters())
        trained = [each for each in network.parameters() if each.requires_grad]
        for each in trained:
            each.grad = torch.empty_like(each)
        gradients = live.now - weights - batch
        live.begin()
        network.train()
        value = _loss(network, supervised, image, target, place=place, precision=plan.precision)
        steps.zero_grad()
        torch.autograd.backward(value)
        del value
        passes = live.peak
        held = live.now
        live.begin()
        # Clipping works in place; the norms it needs are single numbers.
        steps.step()
        moments = live.now - held
        stepping = live.peak
        del image, target, valid
        live.begin()
        network.eval()
        _tiles(network, plan, place)
        validation = live.peak
    more = weights if averaged else 0
    step = max(passes + moments, stepping)
    accumulators = 2 * _VALUE * plan.num_classes * math.prod(largest_image) if largest_image else 0
    # While the average is validated the raw weights wait beside it.
    validation += 2 * more + accumulators
    augmentation = weights + gradients + moments + batch + _augmentation(plan, source_size)
    return TrainingMemory(
        parameters=weights + more,
        gradients=gradients,
        optimizer=moments,
        batch=batch,
        activations=max(step, augmentation) - weights - gradients - moments - batch,
        validation=validation,
    )


def stand_ins(modules: Iterable[nn.Module], *, place: str, channels_last: bool) -> dict[int, Any]:
    """A tensor of the same shape for each parameter and buffer, by its id: what `copy.deepcopy` is to find them by."""
    memo: dict[int, Any] = {}
    for tensor in itertools.chain.from_iterable((*module.parameters(), *module.buffers()) for module in modules):
        if id(tensor) in memo:
            continue
        order = CHANNELS_LAST.get(tensor.ndim) if channels_last and isinstance(tensor, nn.Parameter) else None
        same = torch.empty(
            tensor.shape, dtype=tensor.dtype, device=place, memory_format=order or torch.contiguous_format
        )
        memo[id(tensor)] = (
            nn.Parameter(same, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else same
        )
    return memo


def _target(plan: Plan, supervised: nn.Module, place: str) -> Target:
    """All the fields that the loss asks for."""
    needs = frozenset(getattr(supervised, "needs", frozenset()))
    shape = (plan.batch_size, 1, *plan.patch_size)

    def field(name: str, dtype: torch.dtype) -> Tensor | None:
        return torch.empty(shape, dtype=dtype, device=place) if name in needs else None

    present = torch.empty(plan.batch_size, plan.num_classes, dtype=torch.bool, device=place)
    return Target(
        label=torch.empty(shape, dtype=torch.int64, device=place),
        instances=field("instances", torch.int16),
        cells=field("cells", torch.int16),
        weight=field("weight", torch.float32),
        labels_present=present if "labels_present" in needs else None,
        spacing=plan.spacing if "spacing" in needs else None,
        num_instances=_INSTANCES if needs & set(ID_FIELDS) else None,
    )


def _loss(
    network: nn.Module, supervised: nn.Module, image: Tensor, target: Target, *, place: str, precision: str
) -> Tensor:
    """As `SegmentationModule.training_step`: the loss, and the counts of the training Dice beside it."""
    with autocast(torch.device(place), precision):
        outputs = network(image)
        value: Tensor = supervised(outputs, target)
        with torch.no_grad():
            finest = outputs[0] if isinstance(outputs, list) else outputs
            sample_counts(finest.detach(), target.label)
    return value


def _tiles(network: nn.Module, plan: Plan, place: str) -> None:
    """One pass of the sliding window."""
    with torch.no_grad(), autocast(torch.device(place), plan.precision):
        tiles = torch.empty(plan.tile_batch, plan.in_channels, *plan.patch_size, device=place)
        network(tiles).float()


def _augmentation(plan: Plan, source_size: Size) -> int:
    """The patches before augmentation, the grid that they are resampled by, and the images of intensity transforms.

    Before the forward pass there are no feature maps yet, so this counts for the smallest networks only.
    """
    voxels = math.prod(plan.patch_size)
    source = (_VALUE * plan.in_channels + 2 + 1) * math.prod(source_size)
    return plan.batch_size * source + _VALUE * voxels * (plan.dimensions + _MAPS_OF_AUGMENTATION)


def can_recompute(network: nn.Module) -> bool | None:
    """Whether gradient checkpointing would help: True where it is off, False where it is on, None where it cannot."""
    parts = [part for part in network.modules() if isinstance(part, Recomputing)]
    return not any(part.recompute for part in parts) if parts else None
