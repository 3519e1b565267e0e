"""A whole image through a network that sees patches: overlapping tiles, blended with a Gaussian weight.

Tiles lie as nnU-Net lays them: evenly spread, their distance at most `step` times the patch, so that an image
of 110 voxels under a patch of 64 is cut at 0, 23, 46. The tiles form a full grid and the weight is a product
over the axes, so each axis is normalised by itself,

    w_a(x | tile) = g_a(x - start) / sum over tiles of g_a(x - start'),        logits = sum_tiles prod_a w_a * f(tile)

which needs no second array of summed weights, no division at the end, and leaves an axis that fits into one
tile untouched, bit by bit.

Reference: Isensee et al., nnU-Net, Nature Methods 2021.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations, islice, product
from math import ceil
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from segkit.errors import UsageError
from segkit.ops.padding import pad_to_size
from segkit.types import Size

SIGMA_SCALE = 1 / 8
"""Standard deviation of the Gaussian weight, as a share of the patch."""

Window: TypeAlias = tuple[int, Tensor]
"""Start of a tile along one axis and its normalised weight there."""


def tile_starts(size: int, patch: int, step: float = 0.5) -> tuple[int, ...]:
    """Where tiles start along one axis: evenly spread, the first at 0, the last against the end.

    Args:
        size: Voxels of the image; at least `patch`.
        patch: Voxels of the tile.
        step: Largest distance of two tiles, as a share of the patch; in (0, 1].

    Raises:
        ValueError: The image is smaller than the tile.
        UsageError: `step` is not in (0, 1].
    """
    if not 0 < step <= 1:
        raise UsageError("the step between tiles must lie in (0, 1]", where="validation.step", why=f"it is {step}")
    if size < patch:
        raise ValueError(f"image of {size} voxels under a tile of {patch}: pad it first")
    room = size - patch
    tiles = ceil(room / (patch * step)) + 1
    return tuple(round(room * i / max(tiles - 1, 1)) for i in range(tiles))


def gaussian(patch: Size) -> Float[Tensor, "*S"]:
    """Weight of each voxel of a tile: 1 at the centre voxel `patch // 2`, falling with sigma = patch / 8.

    Equal to nnU-Net's filtered delta, whose support of 4 sigma covers the patch, so that no weight is 0.
    """
    return _outer([_gaussian_axis(n) for n in patch])


def windows(size: int, patch: int, step: float = 0.5) -> list[Window]:
    """Start and weight of each tile along one axis; the weights sum to 1 at every voxel."""
    starts = tile_starts(size, patch, step)
    weight = _gaussian_axis(patch)
    total = torch.zeros(size, dtype=weight.dtype)
    for start in starts:
        total[start : start + patch] += weight
    return [(start, weight / total[start : start + patch]) for start in starts]


def sliding_window(
    network: Callable[[Tensor], Any],
    image: Float[Tensor, "C *S"],
    *,
    patch_size: Size,
    num_classes: int,
    step: float = 0.5,
    tile_batch: int = 1,
    device: torch.device | str = "cpu",
    mirror_axes: Sequence[int] = (),
    before_pass: Callable[[], None] | None = None,
) -> Float[Tensor, "K *S"]:
    """Logits of a whole image.

    Args:
        network: Gives logits (B, K, *patch) of a batch of tiles (B, C, *patch).
        image: The image, on any device; axes smaller than the patch are padded with 0, centred, and cut back.
        patch_size: Size of a tile.
        num_classes: K.
        step: Largest distance of two tiles, as a share of the patch.
        tile_batch: Tiles a pass.
        device: Where the network is.
        mirror_axes: Spatial axes to flip: the mean over all combinations, 2^n passes a tile.
        before_pass: Called before each pass; what it raises ends the prediction.

    Returns:
        Float32 on the CPU.

    Raises:
        UsageError: The network does not keep its contract.
    """
    padded_batch, inside = pad_to_size(image[None], patch_size)
    padded = padded_batch[0]
    size = tuple(padded.shape[1:])
    by_axis = [windows(n, p, step) for n, p in zip(size, patch_size, strict=True)]
    device = torch.device(device)
    # Normal memory, also under inference mode, so that the caller may go on computing with it.
    with torch.inference_mode(mode=False):
        blended = torch.zeros((num_classes, *size), device=accumulator_device(num_classes, size, device))
    for tiles in _batched(product(*by_axis), tile_batch):
        if before_pass is not None:
            before_pass()
        boxes = [tuple(slice(s, s + p) for (s, _), p in zip(tile, patch_size, strict=True)) for tile in tiles]
        batch = torch.stack([padded[(slice(None), *box)] for box in boxes]).to(device)
        logits = mirrored(network, batch, axes=mirror_axes)
        _check(logits, (len(boxes), num_classes, *patch_size))
        logits = logits.to(blended.device, torch.float32)
        for tile, box, tile_logits in zip(tiles, boxes, logits, strict=True):
            weight = _outer([w for _, w in tile]).to(blended.device)
            blended[(slice(None), *box)].addcmul_(tile_logits, weight)
    with torch.inference_mode(mode=False):
        return blended[(slice(None), *inside)].cpu().contiguous()


def mirrored(network: Callable[[Tensor], Any], batch: Float[Tensor, "B C *S"], *, axes: Sequence[int] = ()) -> Any:  # noqa: ANN401  (what a network returns is checked by the caller)
    """Mean of the network's logits over all flips along the given spatial axes; each flipped back."""
    logits = network(batch)
    if not axes:
        return logits
    flips = list(chain.from_iterable(combinations([a + 2 for a in axes], r) for r in range(1, len(axes) + 1)))
    for flip in flips:
        logits = logits + network(batch.flip(flip)).flip(flip)
    return logits / (len(flips) + 1)


def accumulator_device(num_classes: int, size: Size, device: torch.device) -> torch.device:
    """Where the logits are summed: on the device where they take at most half of its free memory."""
    if device.type != "cuda":
        return torch.device("cpu")
    free, _ = torch.cuda.mem_get_info(device)
    needed = 4 * num_classes * torch.Size(size).numel()
    return device if needed <= free // 2 else torch.device("cpu")


def _gaussian_axis(patch: int) -> Float[Tensor, " patch"]:
    distance = torch.arange(patch, dtype=torch.float64) - patch // 2
    return torch.exp(-0.5 * (distance / (patch * SIGMA_SCALE)).square()).float()


def _outer(axes: Sequence[Tensor]) -> Tensor:
    """Product over the axes: weight[x, y, z] = a[x] b[y] c[z]."""
    weight = axes[0]
    for axis in axes[1:]:
        weight = weight.unsqueeze(-1) * axis
    return weight


def _batched(tiles: Iterator[tuple[Window, ...]], size: int) -> Iterator[tuple[tuple[Window, ...], ...]]:
    while batch := tuple(islice(tiles, size)):
        yield batch


def _check(logits: object, shape: tuple[int, ...]) -> None:
    if isinstance(logits, Tensor) and tuple(logits.shape) == shape:
        return
    found = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
    raise UsageError(
        "the network does not keep its contract",
        where="network",
        why=f"in eval it must return logits {shape}, but returned {found}",
        mend="return one tensor (B, classes, *spatial) in eval mode, at the input's size",
    )
