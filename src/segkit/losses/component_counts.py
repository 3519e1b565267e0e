"""Component counts: the few sums by connected component, or by Voronoi cell, that instance-aware losses are made of.

With r a region of the image - a component, or the cell of all voxels nearest to one - and y the label of a voxel:

    hit = sum of p_y over y > 0,   foreground = sum of p_f,   surprise = sum of -log p_y,   voxels = sum of 1

Sums run over the voxels of r, those with label -1 left out; all but `hit` are kept apart for y > 0 (`inside`) and
y = 0 (`outside`). For softmax p_f = 1 - p_0; for sigmoid it is the sum of p over the classes above 0, and the surprise
the sum over all classes of the binary cross-entropy.

One pass over the voxels, whatever the number of regions: each voxel adds to the sums of its region, and in the backward
pass reads the derivatives of these. With a, b, c those of hit, foreground and surprise, softmax gives

    g_k = [k = y] (a p_k - c) + [k > 0] b p_k,     dlogits = g - p (sum of g over classes)

Sums are kept in double precision (single where the device has no other). On CUDA the order of the additions is not
fixed, unless `torch.use_deterministic_algorithms(True)` asks for it; on the CPU it always is.

What need not be summed is not: of two classes p_y over y > 0 is p_f, and Dice alone reads no surprise.
"""

from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from segkit.losses.soft_counts import Activation, _by_class, _over_pieces, _sum_of_classes, _write
from segkit.ops.one_hot import one_hot
from segkit.types import Logits, Target

Regions = Literal["instances", "cells"]

_BINS = 2**14
_MOST_LANES = 64
"""Partial sums of a region, where there is room among the bins: additions to one place have to wait for each other."""


class RegionSums(NamedTuple):
    """Sums over those voxels of each region that are foreground, or over those that are background.

    Args:
        foreground: Sum of p_f.
        surprise: Sum of the negative log-likelihood; NaN where it was not asked for.
        voxels: Number of voxels; without a gradient.
    """

    foreground: Float[Tensor, "B R"]
    surprise: Float[Tensor, "B R"]
    voxels: Float[Tensor, "B R"]


class ComponentCounts(NamedTuple):
    """Sums over the annotated voxels of each sample, by region; float32 (float64 for float64 logits).

    Region 0 is what belongs to no component or cell: of components its `outside` is the background of the image.

    Args:
        hit: Sum of p_y over foreground voxels.
        inside: Over voxels with a label above 0.
        outside: Over voxels with label 0.
        classes: Sum of y; without a gradient. Over `inside.voxels`, the class of a region that has only one.
    """

    hit: Float[Tensor, "B R"]
    inside: RegionSums
    outside: RegionSums
    classes: Float[Tensor, "B R"]


def component_counts(
    logits: Logits, target: Target, *, of: Regions, surprise: bool = True, activation: Activation = "softmax"
) -> ComponentCounts:
    """Component counts of a batch, differentiable once by the logits.

    R is `target.num_instances` + 1. A voxel belongs to component k where its id is k and its label is above 0: an id
    on a background voxel says nothing, and foreground without an id is part of no component. A cell holds all its
    voxels.

    Args:
        logits: (B, K, *S), K at least 2.
        target: With `instances` or `cells`, as `of` says; ids need be different within a sample only.
        of: Regions to sum over.
        surprise: Whether the surprise is asked for; without it a step is a third faster.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Raises:
        ValueError: The target lacks the field.
        RuntimeError: A label is none of the K classes, or an id is beyond `num_instances`; on CUDA when the device next
            reports.
    """
    ids = target.instances if of == "instances" else target.cells
    if ids is None:
        raise ValueError(f"the target has no {of}, which the loss must name in `needs`")
    largest = target.num_instances
    if largest is None:  # of a target made by hand: the one thing here that the host waits for
        largest = int(ids.amax())
    with torch.autocast(logits.device.type, enabled=False):
        made = _ComponentCounts.apply(logits, target.label, ids, largest, of, surprise, activation)  # type: ignore[no-untyped-call]
    learnt, (voxels, *others) = (list(sums.unbind()) for sums in made)
    unknown = learnt.pop() if surprise else torch.full_like(voxels, torch.nan)
    foreground, hit = learnt[0], learnt[-1]
    outside, inside = (
        RegionSums(*sums) for sums in zip(foreground.unbind(-1), unknown.unbind(-1), voxels.unbind(-1), strict=True)
    )
    return ComponentCounts(hit[..., 1], inside, outside, (others or [voxels])[0][..., 1])


class _ComponentCounts(torch.autograd.Function):
    """Sums (n, B, R, 2) of what depends on the logits and (m, B, R, 2) of what does not, y = 0 before y > 0.

    The former are foreground, hit and surprise, the latter voxels and y. Of two classes hit is foreground over y > 0
    and y is 1 there, and neither is summed; surprise only if asked for.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        logits: Tensor,
        label: Tensor,
        ids: Tensor,
        largest: int,
        of: Regions,
        surprise: bool,
        activation: Activation,
    ) -> tuple[Tensor, Tensor]:
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        classes = logits.shape[1]
        maps = (1 if classes == 2 else 2) + surprise
        total = _wide(logits).new_zeros((maps + (1 if classes == 2 else 2), logits.shape[0], largest + 1, 2))

        def count(samples: slice, planes: slice) -> Tensor:
            y = label[samples, :, planes]
            bins = _bins(y, ids[samples, :, planes], largest=largest, of=of)
            values = _maps(logits[samples, :, planes], y, surprise=surprise, activation=activation)
            return _sums_by_bin(values, bins, regions=largest + 1)

        for (samples, _), sums in _over_pieces(count, logits):
            total[:, samples] += sums
        if logits.device.type in ("cpu", "cuda"):  # the devices that have it; the host does not wait for the answer
            torch._assert_async(label.amax() < classes, f"a label is none of the {classes} classes of the logits")
            torch._assert_async(ids.amax() <= largest, f"an id is beyond the {largest} that the target counts")
        learnt, fixed = total[:maps].to(dtype), total[maps:].to(dtype)
        ctx.save_for_backward(logits, label, ids)
        ctx.mark_non_differentiable(fixed)
        ctx.settings = (largest, of, surprise, activation)  # type: ignore[attr-defined]
        return learnt, fixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  torch fills it
        logits, label, ids = ctx.saved_tensors
        largest, of, surprise, activation = ctx.settings
        result = torch.empty_like(logits)

        def derive(samples: slice, planes: slice) -> None:
            y, x = label[samples, :, planes], logits[samples, :, planes]
            bins = _bins(y, ids[samples, :, planes], largest=largest, of=of).flatten()
            # An ignored voxel finds a derivative of 0 in the last bin.
            table = F.pad(gradient[:, samples].flatten(1), (0, 1))
            upstream = [row.index_select(0, bins).view(y.shape) for row in table]
            c = upstream.pop() if surprise else None
            a = upstream.pop() if len(upstream) == 2 else None
            _write(_gradient(x, y, (a, upstream[0], c), activation), into=result[samples, :, planes])

        _over_pieces(derive, logits)
        return result, None, None, None, None, None, None


def _wide(logits: Tensor) -> Tensor:
    """The logits' device with the precision that sums over a million voxels are kept in."""
    return logits.new_empty(0, dtype=torch.float32 if logits.device.type == "mps" else torch.float64)


def _bins(label: Tensor, ids: Tensor, *, largest: int, of: Regions) -> Tensor:
    """Where each voxel is counted, (B, N) int32: 2 (R b + r) + [y > 0], and 2 R B for what is ignored."""
    known = label.flatten(1)
    inside = known > 0
    region = ids.flatten(1).clamp(0, largest).int()
    if of == "instances":
        region = region * inside
    regions = largest + 1
    first = torch.arange(len(label), dtype=torch.int32, device=label.device).mul_(2 * regions)
    bins = region.mul_(2).add_(inside).add_(first[:, None])
    return bins.masked_fill_(known < 0, 2 * regions * len(label))


def _maps(logits: Tensor, label: Tensor, *, surprise: bool, activation: Activation) -> tuple[Tensor, ...]:
    """What is summed over voxels, (B, 1, *S) each, in the order of `_ComponentCounts`."""
    x = _by_class(logits)
    classes = x.shape[1]
    y = label.to(x.dtype)
    truth = one_hot(y, classes, dtype=x.dtype) if surprise or classes > 2 else y
    surprises: tuple[Tensor, ...] = ()
    if surprise and activation == "softmax":
        log_p = x.log_softmax(1)
        surprises = (_sum_of_classes(log_p * truth).neg_(),)
        p = log_p.exp_()
    else:
        p = x.softmax(1) if activation == "softmax" else x.sigmoid()
        if surprise:
            surprises = (_sum_of_classes(F.binary_cross_entropy_with_logits(x, truth, reduction="none")),)
    one = x.new_ones(1).expand_as(y)
    if classes == 2:
        return p[:, 1:], *surprises, one
    hit = truth[:, 1:].mul_(p[:, 1:])
    return _sum_of_classes(p[:, 1:]), _sum_of_classes(hit), *surprises, one, y


def _sums_by_bin(maps: tuple[Tensor, ...], bins: Tensor, *, regions: int) -> Tensor:
    """Sums (n, B, R, 2) of n maps."""
    samples = len(bins)
    count = 2 * regions * samples
    lanes = max(1, min(_MOST_LANES, _BINS // count))
    voxels = bins.shape[1]
    lane = torch.arange(lanes, dtype=torch.int32, device=bins.device).repeat(-(-voxels // lanes))[:voxels]
    index = (bins * lanes).add_(lane).flatten().long()
    wide = _wide(maps[0])
    sums = wide.new_zeros((len(maps), (count + 1) * lanes))
    for row, values in zip(sums, maps, strict=True):
        row.scatter_add_(0, index, values.to(wide.dtype).reshape(-1))
    return sums.view(len(maps), count + 1, lanes)[:, :count].sum(-1).view(-1, samples, regions, 2)


def _gradient(
    logits: Tensor, label: Tensor, upstream: tuple[Tensor | None, Tensor, Tensor | None], activation: Activation
) -> Tensor:
    """The derivative of a piece; `upstream` are a, b and c of the module's formula, (B, 1, *S) each, None for 0."""
    a, b, c = upstream
    x = _by_class(logits)
    p = x.softmax(1) if activation == "softmax" else x.sigmoid()
    read = a is not None or c is not None
    truth = one_hot(label.to(x.dtype), x.shape[1], dtype=x.dtype) if read else p.new_empty(0)
    above = p[:, 1:] * (b if a is None else (truth[:, 1:] * a).add_(b))
    if activation == "softmax":
        g = torch.zeros_like(p) if c is None else truth.mul_(-c)
        g[:, 1:].add_(above)
        return g.addcmul_(p, _sum_of_classes(g), value=-1)
    g = torch.zeros_like(p) if c is None else truth.sub_(p).mul_(-c)
    g[:, 1:].add_(above.addcmul_(above, p[:, 1:], value=-1))
    return g
