"""Resample patches of a batch through linear maps: images linearly, labels and ids by nearest neighbour.

One set of source coordinates serves every field of a sample, so an image and its label cannot part. The maps are known
on the host, and so is whether a patch can leave its source: no answer has to be waited for from a device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from segkit.ops.separable import lerp_along_axis, take_along_axis
from segkit.types import Size

_EXACT = 1 << 24
_MARGIN = 1e-3
"""Voxels by which a patch must stay inside to count as inside, whatever float32 rounds."""


@dataclass(frozen=True)
class Sampling:
    """Where each voxel of the patches comes from.

    Args:
        positions: Source coordinate along each axis, in voxels, each (N, *T).
        source_size: Voxels of the source.
        index: Flat index of the nearest source voxel.
        inside: Whether that voxel exists; None where all of them do.
    """

    positions: tuple[Float[Tensor, "N *T"], ...]
    source_size: Size
    index: Int[Tensor, "N *T"]
    inside: Bool[Tensor, "N *T"] | None


def patch_centre(source_size: Size, patch_size: Size) -> tuple[float, ...]:
    """Source coordinate of the middle of the centre crop, in voxels.

    Half a voxel off the middle of the source where the two sizes differ by an odd number: the identity map must give
    the crop itself, not an interpolation of it.
    """
    return tuple((s - p) // 2 + (p - 1) / 2 for s, p in zip(source_size, patch_size, strict=True))


def may_leave(matrix: Float[np.ndarray, "d d"], source_size: Size, patch_size: Size) -> bool:
    """Whether a voxel of the patch may lie nearer to none of the source's voxels than half a voxel.

    Row r of the map reaches sum_j |A_rj| (p_j - 1) / 2 voxels to both sides of the centre.
    """
    reach = np.abs(matrix) @ (np.asarray(patch_size) - 1) / 2
    centre = np.asarray(patch_centre(source_size, patch_size))
    limit = np.asarray(source_size) - 0.5 - _MARGIN
    return bool((centre - reach < _MARGIN - 0.5).any() or (centre + reach > limit).any())


def make_sampling(
    matrices: Float[np.ndarray, "N d d"],
    source_size: Size,
    patch_size: Size,
    *,
    planes: slice = slice(None),
    leaves: bool = True,
    device: torch.device | str = "cpu",
) -> Sampling:
    """Source coordinates x = centre + A (i - (patch - 1) / 2), axes in the order of the tensor, in voxels.

    Args:
        matrices: A of each sample: offsets from the patch's middle to offsets in the source.
        source_size: Voxels of the source.
        patch_size: Voxels of the patches.
        planes: The part of the patches' first axis that is wanted.
        leaves: Whether a patch may leave its source (`may_leave`); where none can, nothing is made to say so.
        device: Where to make them.

    Returns:
        The sampling of all N patches.
    """
    count, dimensions = matrices.shape[:2]
    weights = torch.from_numpy(matrices.astype(np.float32)).to(device, non_blocking=True)
    lines = [torch.arange(size, device=device, dtype=torch.float32) - (size - 1) / 2 for size in patch_size]
    lines[0] = lines[0][planes]
    positions = []
    for row, middle in enumerate(patch_centre(source_size, patch_size)):
        position: Tensor | float = middle
        for axis, line in enumerate(lines):
            # Axis by axis, so that only the last sum runs over all voxels.
            shape = [count, *(len(line) if k == axis else 1 for k in range(dimensions))]
            position = (weights[:, row, axis, None] * line).reshape(shape) + position
        assert isinstance(position, Tensor)
        positions.append(position)
    inside: Tensor | None = None
    nearest = []
    for size, position in zip(source_size, positions, strict=True):
        rounded = position.round()
        bounded = rounded.clamp(0, size - 1)
        if leaves:
            here = bounded == rounded
            inside = here if inside is None else inside.logical_and_(here)
        nearest.append(bounded)
    return Sampling(tuple(positions), tuple(source_size), _flat_index(nearest, source_size), inside)


def _flat_index(coordinates: Sequence[Float[Tensor, "*T"]], size: Size) -> Int[Tensor, "*T"]:
    """Index into the flattened source of whole-numbered coordinates; a float32 is exact to 2^24, beyond it int64 is."""
    steps = size[1:]
    if int(np.prod(size)) > _EXACT:
        coordinates = [coordinate.long() for coordinate in coordinates]
    index = coordinates[0]
    for coordinate, length in zip(coordinates[1:], steps, strict=True):
        index = torch.add(coordinate, index, alpha=length)
    return index.long()


def sample_linear(
    image: Float[Tensor, "N C *S"], sampling: Sampling, *, together: bool = False
) -> Float[Tensor, "N C *T"]:
    """Interpolate linearly; the edge value continues for half a voxel, beyond it is 0.

    Beyond the outermost centres there is nothing to interpolate with; blending into zeros there, as `grid_sample`
    does by default, would darken a rim that counts as image.

    Args:
        image: (N, C, *S).
        sampling: Where to look.
        together: Use `grid_sample`, one launch for all, also for volumes. Its 3D form on the CPU takes voxel after
            voxel, which costs more than twice the look-up of corner after corner. The two agree to rounding.
    """
    if together or len(sampling.positions) == 2:
        axes = [
            position.mul(2 / size).add_(1 / size - 1)
            for position, size in zip(sampling.positions, sampling.source_size, strict=True)
        ]
        grid = torch.stack(axes[::-1], dim=-1)
        sampled = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    else:
        samples = zip(image.flatten(2), zip(*sampling.positions, strict=True), strict=True)
        each = [_between_corners(one, positions, sampling.source_size) for one, positions in samples]
        sampled = torch.stack(each) if len(each) > 1 else each[0][None]
    return sampled if sampling.inside is None else sampled.masked_fill_(~sampling.inside[:, None], 0)


def _between_corners(
    channels: Float[Tensor, "C V"], positions: Sequence[Float[Tensor, "*T"]], size: Size
) -> Float[Tensor, "C *T"]:
    """Linear interpolation in each channel of a flattened source of `size`: each corner for all voxels at once."""
    lows, fractions = [], []
    for position, length in zip(positions, size, strict=True):
        bounded = position.clamp(0, length - 1)
        low = bounded.floor().clamp_(max=max(length - 2, 0))
        lows.append(low)
        fractions.append(bounded.sub_(low).flatten())
    index = _flat_index(lows, size).flatten()
    # Steps in the flat source to the upper neighbour; an axis of one voxel has none.
    strides = list(accumulate(size[:0:-1], mul, initial=1))[::-1]
    steps = [stride if length > 1 else 0 for stride, length in zip(strides, size, strict=True)]

    def between(source: Tensor, axis: int) -> Tensor:
        if axis == len(size):
            return source.index_select(0, index)
        return between(source, axis + 1).lerp_(between(source[steps[axis] :], axis + 1), fractions[axis])

    each = [between(source, 0) for source in channels]
    return (torch.stack(each) if len(each) > 1 else each[0][None]).reshape(-1, *positions[0].shape)


def sample_nearest(field: Shaped[Tensor, "N C *S"], sampling: Sampling) -> Shaped[Tensor, "N C *T"]:
    """Take the nearest voxel, of any dtype and without rounding; 0 (False) where there is none."""
    count, channels = field.shape[:2]
    if count == channels == 1:
        taken = field.flatten().index_select(0, sampling.index.flatten())
    else:
        taken = field.flatten(2).gather(2, sampling.index.flatten(1)[:, None].expand(-1, channels, -1))
    taken = taken.reshape(count, channels, *sampling.index.shape[1:])
    return taken if sampling.inside is None else taken.masked_fill_(~sampling.inside[:, None], 0)


def scaled_lines(factors: Sequence[float], source_size: Size, patch_size: Size) -> list[Float[np.ndarray, "_"]]:
    """Source coordinates of a map without rotation, x = centre + f (i - (patch - 1) / 2), each axis by itself."""
    lines = zip(factors, patch_centre(source_size, patch_size), patch_size, strict=True)
    return [middle + factor * (np.arange(length) - (length - 1) / 2) for factor, middle, length in lines]


def lines_inside(lines: Sequence[Float[np.ndarray, "_"]], source_size: Size) -> Bool[Tensor, "*T"] | None:
    """Whether the voxel nearest to each position exists; None where all of them do."""
    inside = [np.rint(np.clip(x, 0, size - 1)) == np.rint(x) for x, size in zip(lines, source_size, strict=True)]
    if all(here.all() for here in inside):
        return None
    mask = np.ones((), dtype=bool)
    for here in inside:
        mask = mask[..., None] & here
    return torch.from_numpy(mask)


def sample_lines(
    field: Shaped[Tensor, "N C *S"], lines: Sequence[Float[np.ndarray, "_"]], *, linear: bool
) -> Shaped[Tensor, "N C *T"]:
    """`sample_linear` or `sample_nearest` where each axis is mapped by itself: two neighbours a voxel, not eight.

    The edge value continues outside the source.
    """
    edges = [(np.clip(x, 0, size - 1), size) for x, size in zip(lines, field.shape[2:], strict=True)]
    if not linear:
        for axis, (x, _) in enumerate(edges):
            field = take_along_axis(field, axis + 2, np.rint(x).astype(np.int64))
        return field
    taps = []
    for axis, (x, size) in enumerate(edges):
        below = np.floor(x).clip(max=max(size - 2, 0)).astype(np.int64)
        above, first = np.minimum(below + 1, size - 1), int(below.min())
        field = field.narrow(axis + 2, first, int(above.max()) - first + 1)
        taps.append((axis + 2, below - first, above - first, x - below))
    # The last axis, whose voxels are picked one by one and not in rows, when the others are smallest.
    grows = np.prod(field.shape[2:]) < np.prod([len(x) for x in lines])
    for axis, below, above, fraction in reversed(taps) if grows else taps:
        field = lerp_along_axis(field, axis, below, above, fraction)
    return field


def centre_crop(field: Shaped[Tensor, "B C *S"], size: Size, axes: Sequence[int] | None = None) -> Tensor:
    """A view of the middle of the spatial axes (of those in `axes` only, if given)."""
    for axis, (have, want) in enumerate(zip(field.shape[2:], size, strict=True)):
        if axes is None or axis in axes:
            field = field.narrow(axis + 2, (have - want) // 2, want)
    return field


def fold(field: Shaped[Tensor, "B C *S"], axis: int | None) -> Shaped[Tensor, "B D *T"]:
    """Move one spatial axis into the channels, (B, C, ...) to (B, C Z, ...), so that slices are treated alike."""
    return field if axis is None else field.movedim(axis + 2, 2).flatten(1, 2)


def unfold(field: Shaped[Tensor, "B D *T"], axis: int | None, channels: int) -> Shaped[Tensor, "B C *S"]:
    """The inverse of `fold`."""
    return field if axis is None else field.reshape(len(field), channels, -1, *field.shape[2:]).movedim(2, axis + 2)
