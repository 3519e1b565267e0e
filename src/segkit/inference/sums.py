"""Where the weighted logits of tiles are summed: every plane of an image, or only those that a row of tiles covers.

A plane is what one voxel along the first axis cuts out of the image. Tiles come in the order of their starts along that
axis, so that nothing is added any more to the planes before the start of a row once the row has begun. These planes are
given away and their place is used again: plane p lies in place p modulo the number of places, and the memory does not
grow with the number of planes.

    bytes = 4 K min(tile, image along the first axis) prod(image along the other axes)

Where that is too much, the sums lie in a file (`spill`), of which no more than a window is in memory. In each of the
three forms the same numbers are added in the same order.
"""

import math
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from segkit.inference.spill import Spilled
from segkit.types import Size

Window: TypeAlias = tuple[int, Tensor]
"""Start of a tile along one axis and its normalised weight there."""
VALUE = 4
"""Bytes of a float32."""
SPILL_WINDOW = 1 << 26
"""Bytes of spilled sums that are in memory at once where there is no room for more."""
_AROUND = 1 << 17
"""Bytes that the system maps before and behind a run of pages, 64 kB each by Linux's default."""


class Sums:
    """Sums of weighted tiles, float32.

    Args:
        num_classes: K.
        size: Voxels of the image, none smaller than the tile's.
        places: Planes that are held at once; at least the tile's, at most the image's.
        device: Where they are summed.
        scratch: Folder of the file to sum in; None: in memory.
        window: Bytes of that file that may be in memory at once.

    Raises:
        OSError: There is no room for the file.
    """

    def __init__(
        self,
        num_classes: int,
        size: Size,
        *,
        places: int,
        device: torch.device | str = "cpu",
        scratch: Path | None = None,
        window: int = SPILL_WINDOW,
    ) -> None:
        shape = (num_classes, places, *size[1:])
        self.size, self._places, self._window = tuple(size), places, window
        self._spilled = None if scratch is None else Spilled(shape, scratch)
        # Normal memory, also under inference mode, so that the caller may go on computing with it.
        with torch.inference_mode(mode=False):
            self.held: Float[Tensor, "K P *R"] = (
                torch.zeros(shape, device=device) if self._spilled is None else self._spilled.tensor
            )
            self._weight = torch.empty(0, device=self.held.device)
        self._touched = 0
        self._last: Hashable = None

    @property
    def device(self) -> torch.device:
        """Where they are summed."""
        return self.held.device

    @torch.no_grad()
    def add(self, tile: Sequence[Window], logits: Float[Tensor, "K *P"]) -> None:
        """Add one tile, weighted.

        Args:
            tile: Start and weight along each axis.
            logits: On the device of the sums.
        """
        start, rest = tile[0][0], tile[1:]
        weight = self._outer([line.to(self.device) for _, line in tile])
        box = tuple(slice(begin, begin + len(line)) for begin, line in rest)
        for classes in self._portions(tile):
            for places, part in self._places_of(start, start + logits.shape[1]):
                self.held[(classes, places, *box)].addcmul_(logits[classes, part], weight[part])

    def take(self, start: int, stop: int) -> Iterator[Float[Tensor, "K N *R"]]:
        """Planes to which nothing will be added any more, in order, some at a time.

        Each block is a view that holds until the next one is asked for; then its places are used again.

        Args:
            start: First plane.
            stop: One beyond the last.
        """
        plane = VALUE * self.held.shape[0] * math.prod(self.size[1:])
        most = stop - start if self._spilled is None else max(1, self._window // plane)
        for begin in range(start, stop, max(1, most)):
            for places, _ in self._places_of(begin, min(begin + most, stop)):
                self._make_room(None, plane * (places.stop - places.start))
                block = self.held[:, places]
                yield block
                if begin + self._places < self.size[0]:
                    with torch.no_grad():
                        block.zero_()

    def _outer(self, axes: Sequence[Tensor]) -> Tensor:
        """The product over the axes, in memory that the tile before has used: new memory would be zeroed first."""
        if len(axes) == 1:
            return axes[0]
        first, rest = axes[0], outer(axes[1:])
        shape = (len(first), *rest.shape)
        if self._weight.shape != shape:
            with torch.inference_mode(mode=False):
                self._weight = torch.empty(shape, dtype=first.dtype, device=self.device)
        return torch.mul(first.reshape(-1, *[1] * rest.ndim), rest, out=self._weight)

    def _portions(self, tile: Sequence[Window]) -> Iterator[slice]:
        """All classes at once; of spilled sums as many as the window holds."""
        classes = self.held.shape[0]
        if self._spilled is None:
            yield slice(None)
            return
        # Lines along the last axis are shorter than a page of memory: whole ones are touched. With the first page of a
        # run the system maps those about it.
        lines = math.prod(len(weight) for _, weight in tile[1:-1]) * self.size[-1]
        touched = (VALUE * lines + _AROUND) * len(tile[0][1])
        most = max(1, self._window // touched)
        row = tuple(start for start, _ in tile[:-1])
        for first in range(0, classes, most):
            portion = slice(first, min(first + most, classes))
            self._make_room((row, first), touched * (portion.stop - portion.start))
            yield portion

    def _make_room(self, what: Hashable, size: int) -> None:
        """Let pages go where those that come next would not fit beside them; the same again comes with no new ones."""
        if self._spilled is None or (what is not None and what == self._last):
            return
        if self._touched + size > self._window:
            self._spilled.let_go()
            self._touched = 0
        self._touched += size
        self._last = what

    def _places_of(self, start: int, stop: int) -> Iterator[tuple[slice, slice]]:
        """Where planes lie, and which of them: one run of places, or two where the end is passed."""
        first, count = start % self._places, stop - start
        until = min(self._places, first + count)
        yield slice(first, until), slice(0, until - first)
        if rest := count - (until - first):
            yield slice(0, rest), slice(until - first, count)


def outer(axes: Sequence[Tensor]) -> Tensor:
    """Product over the axes: weight[x, y, z] = a[x] b[y] c[z]."""
    weight = axes[0]
    for axis in axes[1:]:
        weight = weight.unsqueeze(-1) * axis
    return weight
