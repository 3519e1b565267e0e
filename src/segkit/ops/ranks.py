"""What the processes (ranks) of one training tell one another; with a single process every function is the identity.

Small facts - a flag, a name, a handful of numbers - travel over a group of their own on the host (gloo), so that no
accelerator is waited for. Every function but `rank` and `world_size` is a collective: all ranks call it, in the same
order, or all wait for the one that does not.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

Value = TypeVar("Value")

_host_groups: dict[int, Any] = {}
"""The group on the host of each default group, by its identity; a closed default group takes its own with it."""


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def any_rank(flag: bool) -> bool:
    """Whether the flag is up on any rank."""
    if world_size() == 1:
        return flag
    value = torch.tensor(int(flag))
    dist.all_reduce(value, op=dist.ReduceOp.MAX, group=_host_group())
    return bool(value)


def any_rank_tensor(flag: Tensor) -> Tensor:
    """The same for a number on the device, without waiting for it: the largest of all ranks, written into `flag`."""
    if world_size() > 1:
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return flag


def gather_objects(value: Value) -> list[Value]:
    """The value of each rank, by rank; small, plain Python objects."""
    if world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value, group=_host_group())
    return gathered


def first_given(value: Value | None) -> Value | None:
    """The value of the lowest rank that has one."""
    return next((each for each in gather_objects(value) if each is not None), None)


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of a tensor over the ranks, with its gradient: the derivative reaches every rank's part.

    Only where gradients are computed: in validation each rank has another number of images, so a collective there
    would wait for ever.
    """
    if world_size() == 1 or not torch.is_grad_enabled():
        return value
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return total


class _Sum(torch.autograd.Function):
    """y = sum over ranks of x; the loss of every rank depends on every x, so dx = sum over ranks of dy."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:  # noqa: ARG004
        total = value.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradients[0])


def part_of_mean(total: Tensor, count: Tensor) -> Tensor:
    """This rank's part of a mean over what all R ranks count: t / (mean over the ranks of c); 0 where nothing counts.

    The mean of the parts over the ranks, which DDP takes of their gradients, is (sum of t) / (sum of c): what one
    process makes of the whole batch. The parts themselves differ, so that the rank whose own is not finite is known.
    Like `sum_over_ranks` a collective only where gradients are computed.

    Args:
        total: t, the sum of this rank; carries the gradient.
        count: c >= 0, what it was summed over, or the sum of its weights; of the same shape, without a gradient.
    """
    count = count.detach()
    if world_size() > 1 and torch.is_grad_enabled():
        count = total_over_ranks([count])[0] / world_size()
    return total / torch.where(count > 0, count, 1)


def total_over_ranks(values: Sequence[Tensor]) -> list[Tensor]:
    """Sums of some tensors without gradient; the tensors themselves stay as they are."""
    totals = [value.detach().clone() for value in values]
    if world_size() > 1:
        for total in totals:
            dist.all_reduce(total)
    return totals


def share_of(items: Sequence[Value]) -> list[Value]:
    """Every item on one rank and no item on two: the items of this rank."""
    return list(items[rank() :: world_size()])


def _host_group() -> Any:  # noqa: ANN401  torch's own type is private
    if dist.get_backend() == "gloo":
        return dist.group.WORLD
    key = id(dist.group.WORLD)
    if key not in _host_groups:
        _host_groups.clear()
        _host_groups[key] = dist.new_group(backend="gloo")
    return _host_groups[key]
