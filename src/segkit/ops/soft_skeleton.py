"""Skeletons of soft masks: morphology on probabilities, by minima and maxima of neighbours.

    open(x) = dilate(erode(x)),     what of x opening removes is thinner than what opening keeps

    S_0 = x_0 - open(x_0),    x_i = erode(x_{i-1}),    S_i = S_{i-1} + (1 - S_{i-1}) (x_i - open(x_i))

Erosion takes the minimum over the neighbours with a common face, dilation the maximum over those with a common corner.
Of a binary mask S is binary: of lines all, of thick structures what is left when nothing more can be peeled off.

Every minimum and maximum is made of operations on whole maps. Pooling would do the same, but its derivative on CUDA
depends on the order of threads and is refused where determinism is asked for. The derivative goes in equal parts to all
that tie.

Reference:
    Shit et al., clDice (2021), algorithm 1.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

Part: TypeAlias = tuple[slice, ...]


def soft_skeleton(
    mask: Float[Tensor, "B C *S"], *, iterations: int, known: Bool[Tensor, "B 1 *S"] | None = None
) -> Float[Tensor, "B C *S"]:
    """Skeleton of each map, differentiable once.

    Args:
        mask: Values in [0, 1].
        iterations: Erosions; as many as the largest radius in voxels, for what is thicker leaves no skeleton.
        known: Where the mask is known; None: everywhere. Elsewhere, as beyond the edge of the image, there is
            neither structure nor background, and the skeleton is 0.

    Returns:
        Values in [0, 1].
    """
    eroded = erode(mask, known)
    skeleton = (mask - dilate(eroded, known)).relu()
    for _ in range(iterations):
        thinner, eroded = eroded, erode(eroded, known)
        removed = (thinner - dilate(eroded, known)).relu()
        skeleton = skeleton + (1 - skeleton) * removed
    return skeleton if known is None else skeleton.where(known, 0)


def erode(value: Float[Tensor, "B C *S"], known: Bool[Tensor, "B 1 *S"] | None = None) -> Float[Tensor, "B C *S"]:
    """The least of each voxel and its neighbours along the axes that are known; 0 where not known."""
    axes = tuple(range(2, value.ndim))
    if known is None:
        return _extremum(value, axes, "min")
    return _extremum(value.where(known, torch.inf), axes, "min").where(known, 0)


def dilate(value: Float[Tensor, "B C *S"], known: Bool[Tensor, "B 1 *S"] | None = None) -> Float[Tensor, "B C *S"]:
    """The largest of each voxel and its neighbours, diagonal ones too, that are known; 0 where not known."""
    result = value if known is None else value.where(known, -torch.inf)
    for axis in range(2, value.ndim):
        result = _extremum(result, (axis,), "max")
    return result if known is None else result.where(known, 0)


def _extremum(value: Tensor, axes: tuple[int, ...], kind: Literal["min", "max"]) -> Tensor:
    result: Tensor = _Extremum.apply(value, axes, kind)  # type: ignore[no-untyped-call]
    return result


class _Extremum(torch.autograd.Function):
    """Of each voxel and its two neighbours along each of the axes."""

    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor, axes: tuple[int, ...], kind: Literal["min", "max"]) -> Tensor:
        better = torch.minimum if kind == "min" else torch.maximum
        result = value.clone()
        for here, there in _neighbours(value.shape, axes):
            better(result[here], value[there], out=result[here])
        ctx.save_for_backward(value, result)
        ctx.axes = axes  # type: ignore[attr-defined]
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401  torch fills it at will
        value, result = ctx.saved_tensors
        pairs = _neighbours(value.shape, ctx.axes)
        own = value == result
        winners = own.to(value.dtype)
        for here, there in pairs:
            winners[here] += result[here] == value[there]
        share = gradients[0] / winners
        gradient = share * own
        for here, there in pairs:
            gradient[there] += share[here] * (result[here] == value[there])
        return gradient, None, None


def _neighbours(shape: Sequence[int], axes: tuple[int, ...]) -> list[tuple[Part, Part]]:
    """The voxels with a neighbour one further along an axis, and these neighbours; both ways along each axis."""
    pairs = []
    for axis in axes:
        everything = [slice(None)] * len(shape)
        low, high = (tuple([*everything[:axis], part, *everything[axis + 1 :]]) for part in (slice(-1), slice(1, None)))
        pairs += [(low, high), (high, low)]
    return pairs
