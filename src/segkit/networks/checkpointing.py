"""Gradient checkpointing: a stage keeps its input alone and is computed again in the backward pass.

Of a stage's feature maps only what it was given stays in memory between the two passes; the rest is made a second time
when its gradient is due. Memory is bought with one more forward pass. What is computed does not change: the same
operations run on the same numbers in the same order, random numbers included, so that loss and gradients are equal to
the bit wherever the operations themselves repeat.

Reference:
    Chen et al., Training Deep Nets with Sublinear Memory Cost (2016).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from segkit.errors import UsageError


class Recomputing(nn.Module):
    """A part of a network that is run stage by stage, through `run`; `checkpoint_stages` switches the saving on."""

    recompute = False
    """Whether stages are computed again in the backward pass."""

    def run(self, stage: Callable[..., Any], *inputs: Any) -> Any:  # noqa: ANN401  a stage's own
        """What the stage makes of its inputs; in training it may keep nothing but them.

        Args:
            stage: A function of tensors without side effects.
            inputs: Its inputs.
        """
        if self.recompute and self.training and torch.is_grad_enabled():
            return checkpoint(stage, *inputs, use_reentrant=False, preserve_rng_state=True)
        return stage(*inputs)


def checkpoint_stages(network: nn.Module, *, on: bool = True) -> nn.Module:
    """Let every stage of a network be computed again in the backward pass; parameters and their names stay.

    Args:
        network: Changed in place: the parts of it that derive from `Recomputing`.
        on: False switches it off again.

    Returns:
        The same network.

    Raises:
        UsageError: The network has no such part, or one of them keeps running statistics, which a second pass would
            move a second time.
    """
    parts = [module for module in network.modules() if isinstance(module, Recomputing)]
    running = [each for part in parts for each in part.modules() if isinstance(each, _NormBase) and _counts(each)]
    if on and (not parts or running):
        name = type(network).__name__
        raise UsageError(
            "Gradient checkpointing does not fit this network.",
            where="trainer.gradient_checkpointing",
            why=f"{type(running[0]).__name__} of {name} keeps running statistics: a second pass would move them again"
            if running
            else f"{name} has no stages that segkit can compute again: no part of it is a "
            "segkit.networks.checkpointing.Recomputing",
            mend="trainer.gradient_checkpointing=false",
        )
    for part in parts:
        part.recompute = on
    return network


def _counts(norm: _NormBase) -> bool:
    return norm.running_mean is not None
