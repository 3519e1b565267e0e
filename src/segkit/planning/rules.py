"""nnU-Net's planning rules, written as small pure functions: spacing, topology, memory, patch, batch.

They hold for two and three axes and for any order of the axes; ties are broken towards the last axis.
The memory estimate counts the elements that convolutions put out, as nnU-Net does: it is no number of bytes
but proportional to one, and is compared with a reference of the same kind.

Reference:
    Isensee et al. 2021, nnU-Net, Nature Methods 18; Isensee et al. 2024, nnU-Net Revisited (residual encoders).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from segkit.types import Size, Spacing

ANISOTROPY = 3.0
"""A voxel longer than this many times its other edges counts as anisotropic."""
MIN_EDGE = 4
"""No axis is pooled below this many voxels."""
RESIDUAL_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6, 6, 6)
"""Residual blocks by encoder stage (ResEnc)."""

Encoder: TypeAlias = Literal["plain", "residual"]


@dataclass(frozen=True)
class Topology:
    """The shape of a U-Net.

    Args:
        strides: Downsampling at the entry of each stage; the first is 1 everywhere.
        kernel_sizes: Kernel of each stage.
        divisor: What each axis of a patch must be a multiple of: 2^(number of poolings).
    """

    strides: tuple[Size, ...]
    kernel_sizes: tuple[Size, ...]
    divisor: Size

    @property
    def num_stages(self) -> int:
        """Resolutions, the finest included."""
        return len(self.strides)


@dataclass(frozen=True)
class Budget:
    """How large a network's feature maps may grow.

    Args:
        base_features: Channels of the first stage; doubled at each.
        max_features: Where the doubling stops.
        reference: Elements of convolution output that fit at `reference_batch`.
        reference_batch: The batch of that reference.
        encoder: "plain": two convolutions a stage; "residual": blocks, and one convolution a decoder stage.
        max_stages: At most so many resolutions.
        dataset_share: A batch covers at most this share of the data set's voxels.
        min_batch: Never fewer samples than this.
        max_batch: Never more.
        max_voxels: A patch never has more voxels; 0 for no limit.
    """

    base_features: int
    max_features: int
    reference: float
    reference_batch: int
    encoder: Encoder = "plain"
    max_stages: int = 99
    dataset_share: float = 0.05
    min_batch: int = 2
    max_batch: int = 2**31
    max_voxels: int = 0

    def features(self, num_stages: int) -> tuple[int, ...]:
        """Channels by stage."""
        return tuple(min(self.base_features * 2**stage, self.max_features) for stage in range(num_stages))


@dataclass(frozen=True)
class PatchPlan:
    """What the search settles on."""

    patch_size: Size
    batch_size: int
    topology: Topology
    features: tuple[int, ...]
    estimate: int


def target_spacing(spacings: Sequence[Spacing], shapes: Sequence[Size]) -> Spacing:
    """Median spacing, except along an axis that is sampled much more coarsely than the others.

    Where the coarsest axis is over 3 times the coarsest of the others and the images have less than a third
    of the others' voxels along it, its 10th percentile is taken (not finer than the others): upsampling half
    of the cases a little is better than throwing away slices of the other half.
    """
    values, sizes = np.array(spacings, dtype=np.float64), np.median(np.array(shapes, dtype=np.float64), axis=0)
    target = np.median(values, axis=0)
    coarse = int(np.argmax(target))
    others = [axis for axis in range(len(target)) if axis != coarse]
    coarsest_other = target[others].max()
    if target[coarse] > ANISOTROPY * coarsest_other and sizes[coarse] * ANISOTROPY < sizes[others].min():
        finer = float(np.percentile(values[:, coarse], 10))
        # Not finer than the others; the margin keeps the axis recognisable as the coarse one.
        target[coarse] = max(finer, coarsest_other + 1e-5) if finer < coarsest_other else finer
    return tuple(float(s) for s in target)


def resampled_shape(shape: Size, spacing: Spacing, target: Spacing) -> Size:
    """Voxels that cover the same extent at another spacing; at least 1."""
    return tuple(max(1, round(n * old / new)) for n, old, new in zip(shape, spacing, target, strict=True))


def separate_axis(spacing: Spacing, target: Spacing) -> int | None:
    """The axis that is resampled apart from the others, without interpolation across thick slices.

    It is the coarse axis of the source if the source is anisotropic, else of the target; None where neither
    is, or where two axes are equally coarse (then no plane is the fine one).
    """
    if len(spacing) < 3:
        return None
    for candidate in (spacing, target):
        if max(candidate) / min(candidate) > ANISOTROPY:
            coarse = [axis for axis, value in enumerate(candidate) if value == max(candidate)]
            return coarse[0] if len(coarse) == 1 else None
    return None


def topology(patch_size: Size, spacing: Spacing, *, max_stages: int = 99, min_edge: int = MIN_EDGE) -> Topology:
    """Strides and kernels for a patch.

    An axis is halved while it keeps at least `min_edge` voxels and its voxel is less than twice the finest
    that can still be halved. One axis alone is halved only from `3 * min_edge` voxels on. A kernel is 1 along
    an axis until its voxel comes within twice the finest, then 3; the bottleneck's is 3.
    """
    dimensions = len(patch_size)
    size, voxel = list(patch_size), list(spacing)
    kernel, pooled = [1] * dimensions, [0] * dimensions
    strides: list[Size] = [(1,) * dimensions]
    kernels: list[Size] = []
    while len(strides) < max_stages:
        large = [axis for axis in range(dimensions) if size[axis] >= 2 * min_edge]
        if not large:
            break
        finest = min(voxel[axis] for axis in large)
        halved = [axis for axis in large if voxel[axis] / finest < 2]
        if len(halved) == 1 and size[halved[0]] < 3 * min_edge:
            break
        kernel = [3 if k == 3 or v / min(voxel) < 2 else 1 for k, v in zip(kernel, voxel, strict=True)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in halved else 1 for axis in range(dimensions)))
        for axis in halved:
            size[axis] = math.ceil(size[axis] / 2)
            voxel[axis] *= 2
            pooled[axis] += 1
    kernels.append((3,) * dimensions)
    return Topology(tuple(strides), tuple(kernels), tuple(2**p for p in pooled))


def padded(patch_size: Size, divisor: Size) -> Size:
    """The next multiple of `divisor` by axis."""
    return tuple(math.ceil(n / d) * d for n, d in zip(patch_size, divisor, strict=True))


def convolution_elements(
    patch_size: Size,
    strides: Sequence[Size],
    features: Sequence[int],
    *,
    num_classes: int,
    encoder: Encoder = "plain",
) -> int:
    """Elements that all convolutions of a U-Net put out for one sample (one segmentation head).

    plain: two convolutions a stage in the encoder and two in the decoder. residual: a stem, blocks of two
    convolutions with a projection where stride or channels change, one convolution a decoder stage. Both:
    a transposed convolution a decoder stage.
    """
    sizes: list[int] = []
    size = tuple(patch_size)
    for stride in strides:
        size = tuple(n // s for n, s in zip(size, stride, strict=True))
        sizes.append(math.prod(size))
    maps = [channels * voxels for channels, voxels in zip(features, sizes, strict=True)]
    if encoder == "plain":
        encoded, decoder_convolutions = sum(2 * m for m in maps), 2
    else:
        encoded, decoder_convolutions = maps[0], 1
        before = features[0]
        for stage, one_map in enumerate(maps):
            projected = max(strides[stage]) > 1 or features[stage] != before
            encoded += one_map * (2 * RESIDUAL_BLOCKS[stage] + int(projected))
            before = features[stage]
    decoded = sum((decoder_convolutions + 1) * m for m in maps[:-1])
    return encoded + decoded + num_classes * sizes[0]


def plan_patch(
    spacing: Spacing,
    median_shape: Sequence[float | int],
    *,
    num_classes: int,
    num_cases: int,
    budget: Budget,
) -> PatchPlan:
    """Search patch, batch and topology within a budget.

    Start from a patch with the voxel's aspect (256^3 or 2048^2 voxels), clip it to the median image, pad it to
    what the topology divides by. While the estimate is over the budget, shrink the axis that is largest
    relative to the median image by its divisor. What is left of the budget becomes batch.

    Args:
        spacing: Target spacing.
        median_shape: Median voxels by axis at that spacing.
        num_classes: Classes, background included.
        num_cases: Cases of the data set.
        budget: See `Budget`.
    """
    dimensions = len(spacing)
    edge = 256.0 if dimensions == 3 else 2048.0
    aspect = 1 / np.array(spacing, dtype=np.float64)
    start = [round(float(a)) for a in aspect * (edge**dimensions / aspect.prod()) ** (1 / dimensions)]
    size: Size = tuple(int(min(a, b)) for a, b in zip(start, median_shape, strict=True))

    shape = topology(size, spacing, max_stages=budget.max_stages)
    size = padded(size, shape.divisor)
    while True:
        features = budget.features(shape.num_stages)
        estimate = convolution_elements(size, shape.strides, features, num_classes=num_classes, encoder=budget.encoder)
        too_many_voxels = 0 < budget.max_voxels < math.prod(size)
        if estimate <= budget.reference and not too_many_voxels:
            break
        smaller = _shrunk(size, spacing, median_shape, shape, max_stages=budget.max_stages)
        if smaller == size:
            break
        size = smaller
        shape = topology(size, spacing, max_stages=budget.max_stages)
        size = padded(size, shape.divisor)
    batch = round(budget.reference / estimate * budget.reference_batch)
    covering = round(float(np.prod(median_shape)) * num_cases * budget.dataset_share / math.prod(size))
    batch = max(min(batch, covering, budget.max_batch), budget.min_batch)
    return PatchPlan(size, batch, shape, features, estimate)


def _shrunk(
    size: Size, spacing: Spacing, median_shape: Sequence[float | int], shape: Topology, *, max_stages: int
) -> Size:
    """One step down along the axis that is largest relative to the median image.

    The step is the divisor that the smaller patch will have, not the present one: from 256 (divisor 64)
    this gives 224, a valid size that 256 - 64 would skip.
    """
    ratios = [n / m for n, m in zip(size, median_shape, strict=True)]
    axis = int(np.argsort(ratios)[-1])
    trial = list(size)
    trial[axis] -= shape.divisor[axis]
    if trial[axis] <= 0:
        return size
    step = topology(tuple(trial), spacing, max_stages=max_stages).divisor[axis]
    return tuple(n - step if i == axis else n for i, n in enumerate(size))
