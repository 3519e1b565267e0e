"""A whole image through a network that sees patches: overlapping tiles, blended with a Gaussian weight.

Tiles lie as nnU-Net lays them: evenly spread, their distance at most `step` times the patch, so that an image
of 110 voxels under a patch of 64 is cut at 0, 23, 46. The tiles form a full grid and the weight is a product
over the axes, so each axis is normalised by itself,

    w_a(x | tile) = g_a(x - start) / sum over tiles of g_a(x - start'),        logits = sum_tiles prod_a w_a * f(tile)

which needs no second array of summed weights, no division at the end, and leaves an axis that fits into one
tile untouched, bit by bit.

`sliding_window` gives the logits of the whole image, `stream_planes` the same numbers plane by plane, in an amount of
memory that does not grow with the number of planes (`sums`).

Reference: Isensee et al., nnU-Net, Nature Methods 2021.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain, combinations, product
from math import ceil, prod
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from segkit.errors import UsageError
from segkit.inference.sums import SPILL_WINDOW, VALUE, Sums, Window, outer
from segkit.ops.lack_of_memory import is_out_of_memory
from segkit.ops.padding import pad_to_size
from segkit.types import Size

SIGMA_SCALE = 1 / 8
"""Standard deviation of the Gaussian weight, as a share of the patch."""


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
    return outer([_gaussian_axis(n) for n in patch])


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
    fewer: Callable[[int], None] | None = None,
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
        fewer: Told how many tiles a pass are left where the memory did not last for as many as before.

    Returns:
        Float32 on the CPU.

    Raises:
        UsageError: The network does not keep its contract.
    """
    laid = lay_out(image, patch_size, step)
    place = sums_device(num_classes, laid.size, torch.device(device))
    sums = Sums(num_classes, laid.size, places=laid.size[0], device=place)
    passes = Passes(
        network,
        num_classes=num_classes,
        tile_batch=tile_batch,
        device=device,
        mirror_axes=mirror_axes,
        before_pass=before_pass,
        fewer=fewer,
    )
    for _ in _finished(passes, laid, sums):
        pass
    with torch.inference_mode(mode=False):
        return sums.held[(slice(None), *laid.inside)].cpu().contiguous()


def stream_planes(
    passes: "Passes",
    image: Float[Tensor, "C *S"],
    *,
    patch_size: Size,
    step: float = 0.5,
    scratch: Path | None = None,
    window: int = SPILL_WINDOW,
) -> Iterator[Float[Tensor, "K N *R"]]:
    """The logits of `sliding_window` in blocks of planes along the first axis, bit by bit the same numbers.

    Each block is a view of memory that is used again: it holds until the next one is asked for.

    Args:
        passes: What gives the logits of tiles.
        image: As for `sliding_window`.
        patch_size: Size of a tile.
        step: Largest distance of two tiles, as a share of the patch.
        scratch: Folder of a file to sum in; None: in memory, on the network's device where that has room.
        window: Bytes of that file that may be in memory at once.

    Raises:
        UsageError: The network does not keep its contract.
        OSError: There is no room for the file.
    """
    laid = lay_out(image, patch_size, step)
    size = (patch_size[0], *laid.size[1:])
    place = sums_device(passes.num_classes, size, passes.device) if scratch is None else "cpu"
    sums = Sums(passes.num_classes, laid.size, places=patch_size[0], device=place, scratch=scratch, window=window)
    first, *rest = laid.inside
    begin = first.start
    for finished in _finished(passes, laid, sums):
        # Planes are added in front and behind only where one row of tiles is all there is: their places stay unused.
        stop = min(finished, first.stop)
        for block in sums.take(begin, stop):
            yield block[(slice(None), slice(None), *rest)]
        begin = stop


@dataclass(frozen=True)
class Layout:
    """An image cut into tiles.

    Args:
        image: (C, *S), padded to at least the tile.
        inside: Where the image lies in it.
        windows: Start and weight of each tile, by axis.
    """

    image: Tensor
    inside: tuple[slice, ...]
    windows: tuple[list[Window], ...]

    @property
    def size(self) -> Size:
        """Voxels of the padded image."""
        return tuple(self.image.shape[1:])


def lay_out(image: Float[Tensor, "C *S"], patch_size: Size, step: float) -> Layout:
    """Pad an image to the tile where it is smaller, and place the tiles."""
    padded, inside = pad_to_size(image[None], patch_size)
    size = tuple(padded.shape[2:])
    return Layout(padded[0], inside, tuple(windows(n, p, step) for n, p in zip(size, patch_size, strict=True)))


def count_tiles(size: Size, patch_size: Size, step: float = 0.5) -> int:
    """Tiles of an image."""
    return prod(len(tile_starts(max(n, p), p, step)) for n, p in zip(size, patch_size, strict=True))


class Passes:
    """Passes of a network over batches of tiles; fewer tiles a pass where the memory does not last.

    Args:
        network: Gives logits (B, K, *patch) of a batch of tiles (B, C, *patch).
        num_classes: K.
        tile_batch: Tiles a pass.
        device: Where the network is.
        mirror_axes: Spatial axes to flip and average over.
        before_pass: Called before each pass; what it raises ends the prediction.
        fewer: Told how many tiles a pass are left where the memory did not last for as many as before.
        context: What passes run in; entered for a row of tiles at a time.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Any],
        *,
        num_classes: int,
        tile_batch: int,
        device: torch.device | str,
        mirror_axes: Sequence[int] = (),
        before_pass: Callable[[], None] | None = None,
        fewer: Callable[[int], None] | None = None,
        context: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.network, self.num_classes = network, num_classes
        self.tile_batch, self.device = tile_batch, torch.device(device)
        self.mirror_axes, self.before_pass, self.fewer = tuple(mirror_axes), before_pass, fewer
        self.context = context
        self._tiles: Tensor | None = None

    def logits(self, tiles: Sequence[Float[Tensor, "C *P"]]) -> Float[Tensor, "B K *P"] | None:
        """Logits of a batch of tiles; None where it was too large for the memory: then fewer go into the next one.

        Raises:
            UsageError: The network does not keep its contract.
            RuntimeError: And whatever else says so: the memory does not last for one tile.
        """
        if self.before_pass is not None:
            self.before_pass()
        try:
            batch = self._batch(tiles)
            logits: Tensor = mirrored(self.network, batch, axes=self.mirror_axes)
            _check(logits, (len(tiles), self.num_classes, *batch.shape[2:]))
            return logits
        except (RuntimeError, MemoryError) as error:
            if len(tiles) == 1 or not is_out_of_memory(error):
                raise
        # Out of the handler: what was raised holds the tensors of the pass for as long as it is being handled.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.tile_batch = len(tiles) // 2
        if self.fewer is not None:
            self.fewer(self.tile_batch)
        return None

    def _batch(self, tiles: Sequence[Tensor]) -> Tensor:
        """The tiles on the device; on a processor in the memory of the pass before, which need not be zeroed first."""
        if self.device.type != "cpu":
            return torch.stack(list(tiles)).to(self.device)
        shape, dtype = (len(tiles), *tiles[0].shape), tiles[0].dtype
        if self._tiles is None or (self._tiles.shape, self._tiles.dtype) != (shape, dtype):
            self._tiles = torch.empty(shape, dtype=dtype)
        return torch.stack(list(tiles), out=self._tiles)


def _finished(passes: Passes, laid: Layout, sums: Sums) -> Iterator[int]:
    """Sum all tiles; after each row of them along the first axis, how many planes nothing will be added to."""
    tiles, at = list(product(*laid.windows)), 0
    a_row = prod(len(axis) for axis in laid.windows[1:])
    waiting: deque[tuple[tuple[Window, ...], Tensor]] = deque()
    for end in (*(start for start, _ in laid.windows[0][1:]), laid.size[0]):
        # Entered anew for each row: what is done with the planes in between is none of it.
        with passes.context():
            for _ in range(a_row):
                while not waiting:
                    chosen = tiles[at : at + passes.tile_batch]
                    boxes = [tuple(slice(begin, begin + len(line)) for begin, line in tile) for tile in chosen]
                    logits = passes.logits([laid.image[(slice(None), *box)] for box in boxes])
                    if logits is not None:
                        at += len(chosen)
                        waiting.extend(zip(chosen, logits.to(sums.device, torch.float32), strict=True))
                    del logits  # it shall not stand beside the next pass
                sums.add(*waiting.popleft())
        yield end


def mirrored(network: Callable[[Tensor], Any], batch: Float[Tensor, "B C *S"], *, axes: Sequence[int] = ()) -> Any:  # noqa: ANN401  (what a network returns is checked by the caller)
    """Mean of the network's logits over all flips along the given spatial axes; each flipped back."""
    total = network(batch)
    if not axes:
        return total
    flips = list(chain.from_iterable(combinations([a + 2 for a in axes], r) for r in range(1, len(axes) + 1)))
    for flip in flips:
        # What is flipped back is a copy: it may be added to. What the network returns may be its input.
        total = network(batch.flip(flip)).flip(flip).add_(total)
    return total.div_(len(flips) + 1)


def sums_device(num_classes: int, size: Size, device: torch.device) -> torch.device:
    """Where the logits are summed: on the device where they take at most half of its free memory."""
    if device.type != "cuda":
        return torch.device("cpu")
    free, _ = torch.cuda.mem_get_info(device)
    return device if VALUE * num_classes * prod(size) <= free // 2 else torch.device("cpu")


def _gaussian_axis(patch: int) -> Float[Tensor, " patch"]:
    distance = torch.arange(patch, dtype=torch.float64) - patch // 2
    return torch.exp(-0.5 * (distance / (patch * SIGMA_SCALE)).square()).float()


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
