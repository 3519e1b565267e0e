"""Fused optimizers: one kernel moves all parameters, and can leave a step out by a flag that only the device knows.

A fused step follows the formula of the plain one; some roundings fall elsewhere, so the last digits differ.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

_CLASSES: tuple[type, ...] = (Adam, AdamW, SGD)
_DEVICES = frozenset({"cpu", "cuda"})
_OTHERWISE = ("fused", "foreach", "differentiable", "capturable")
"""Arguments by which a user has chosen an implementation."""


def fusible(
    optimizer: object, arguments: Mapping[str, Any], parameters: Iterable[Tensor], *, precision: str = "32-true"
) -> bool:
    """Whether to build this optimizer with `fused=True`.

    Not under a loss scaler: a fused optimizer divides by the scale itself, after the gradient was clipped. Not with
    dampening: the fused SGD knows no first step of a single parameter (see `prepare_momentum`).

    Args:
        optimizer: The class.
        arguments: What the user has set.
        parameters: What it will move.
        precision: Lightning's name for it.
    """
    return (
        optimizer in _CLASSES
        and all(arguments.get(name) is None for name in _OTHERWISE)
        and not arguments.get("dampening")
        and precision != "16-mixed"
        and all(each.is_floating_point() and each.device.type in _DEVICES for each in parameters)
    )


def honours_flag(optimizer: Optimizer) -> bool:
    """Whether the optimizer leaves a step out where its `found_inf`, a number on the device, is 1.

    Asked of its groups: a checkpoint may have brought back the plain implementation with which its run began.
    """
    if type(optimizer) not in _CLASSES or not all(group.get("fused") for group in optimizer.param_groups):
        return False
    return not any(group.get("dampening") for group in optimizer.param_groups)


@torch.no_grad()
def prepare_momentum(optimizer: Optimizer) -> None:
    """Give each parameter of a fused SGD its momentum, zero, before its first step.

    Without dampening b <- m 0 + g = g is the first step's rule. torch (2.13) instead makes the buffers of a first step
    from memory as it comes, and never fills them where that step is left out by `found_inf`; and it fails where a
    parameter gets its first gradient later than another one.
    """
    if not isinstance(optimizer, SGD):
        return
    for group in optimizer.param_groups:
        if group["fused"] and group["momentum"] and not group["dampening"]:
            for parameter in group["params"]:
                state = optimizer.state[parameter]
                if parameter.requires_grad and state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)


@torch.no_grad()
def align_state(optimizer: Optimizer) -> None:
    """Lay each moment out in memory as its parameter lies.

    The fused kernels walk through both side by side: on a CPU, torch (2.13) computes something else without a word
    where channels come last in one of them only. Gradients always lie as their parameters, autograd sees to it.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def prepared(optimizer: Optimizer) -> Optimizer:
    """The optimizer, with its momentum prepared before each step and its state aligned after each loading."""
    optimizer.register_step_pre_hook(lambda each, args, keywords: prepare_momentum(each))  # noqa: ARG005
    optimizer.register_load_state_dict_post_hook(align_state)
    return optimizer
