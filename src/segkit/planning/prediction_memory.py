"""How much memory the prediction of one image will take, told before its first pass, and how it is kept small.

    peak = max(now + sums + pass + planes + labels, now + writing, what the process has taken before)

`now` is what the process holds when the image has been read and prepared: libraries, weights, the image. The sums are
those of `inference.sums`; a pass is traced on tensors without memory, as a training step is; planes are what
`evaluation.native` holds of the native grid; labels and writing are arrays of the size of the image. Passes on a GPU
take none of the machine's memory but for the logits that come back.
"""

import copy
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from segkit.inference.predictor import autocast
from segkit.inference.sums import SPILL_WINDOW, VALUE
from segkit.planning.live_bytes import LiveBytes, no_memory
from segkit.planning.training_memory import CannotPredict, short, size_text, stand_ins
from segkit.types import Size

_PLANES_OF_A_MEMBER = 3
"""Two that are held, and what is computed from them."""
_SHARED_PLANES = 3
"""The mean over the members, the largest value so far, probabilities."""
_LABEL_BYTES = 2
READING_BYTES = 28
"""A voxel and channel while an image is read and prepared: the file's number, seven of float32 at most."""
_WRITING_BYTES = 22
"""A voxel while its mask is written: class, id, the id in the order and the type of the file, packed, and the image."""


@dataclass(frozen=True)
class MemberSize:
    """What decides the memory that one network needs for an image.

    Args:
        num_classes: K.
        grid: Voxels of the image on the plan's grid.
        patch_size: Size of a tile.
        tile_batch: Tiles a pass.
        a_pass: Bytes of a pass over so many tiles, in the machine's memory.
        on_device: Whether the sums lie on a GPU.
    """

    num_classes: int
    grid: Size
    patch_size: Size
    tile_batch: int
    a_pass: Callable[[int], int]
    on_device: bool = False

    @property
    def sums(self) -> int:
        """Bytes of the sums over one row of tiles, in the machine's memory."""
        if self.on_device:
            return 0
        rest = (max(n, p) for n, p in zip(self.grid[1:], self.patch_size[1:], strict=True))
        return VALUE * self.num_classes * self.patch_size[0] * math.prod(rest)

    @property
    def logits(self) -> int:
        """Bytes of the logits of a tile."""
        return VALUE * self.num_classes * math.prod(self.patch_size)

    @property
    def padded(self) -> int:
        """Bytes of a channel's copy, as large as a tile, of an image that is smaller."""
        if all(n >= p for n, p in zip(self.grid, self.patch_size, strict=True)):
            return 0
        return VALUE * math.prod(max(n, p) for n, p in zip(self.grid, self.patch_size, strict=True))


@dataclass(frozen=True)
class PredictionMemory:
    """Bytes of the machine's memory.

    Args:
        now: What the process holds.
        before: The most it has held so far.
        sums: Of all members, as far as they are in memory.
        a_pass: The largest of the members' passes.
        planes: Planes of the native grid.
        labels: Classes of all voxels.
        writing: What writing the mask takes beside `now`.
        window: Of each member's spilled sums; None where they are in memory.
        spilled: Bytes on disk.
        tile_batches: Tiles a pass, by member.
        reading: What reading another such image takes.
        beside: What goes on beside the prediction: the next image is read, the last mask written.
    """

    now: int
    before: int
    sums: int
    a_pass: int
    planes: int
    labels: int
    writing: int
    window: int | None
    spilled: int
    tile_batches: tuple[int, ...]
    reading: int = 0
    beside: int = 0

    @property
    def predicting(self) -> int:
        """The most during the prediction."""
        return self.now + self.sums + self.a_pass + self.planes + self.labels

    @property
    def peak(self) -> int:
        """The most at any time."""
        return max(self.predicting + self.beside, self.now + self.writing, self.before)

    def text(self) -> str:
        """The peak and what it is made of, for people."""
        parts = {
            "process and image": self.now,
            "sums": self.sums,
            "a pass": self.a_pass,
            "planes and labels": self.planes + self.labels,
            "the images before and after": self.beside,
        }
        if self.peak > self.predicting + self.beside:
            parts = {"reading or writing the image": self.peak, "predicting": self.predicting}
        told = {name: short(size, self.peak) for name, size in parts.items()}
        made_of = ", ".join(f"{name} {size}" for name, size in told.items() if float(size) > 0)
        spilled = f"; sums of {size_text(self.spilled)} in a file" if self.spilled else ""
        return f"{size_text(self.peak)} ({made_of}{spilled})"


def fitted(
    members: Sequence[MemberSize], native: Size, *, now: int, before: int = 0, limit: int | None, scratch: bool = True
) -> PredictionMemory:
    """The fastest way to predict that keeps below the limit: sums in memory, sums in a file, then fewer tiles a pass.

    The first two give the same numbers to the last bit. Networks on a GPU are left their tiles.

    Args:
        members: One network or several, which are asked in turn for their planes.
        native: Voxels of the crop on the native grid.
        now: Bytes that the process holds.
        before: The most it has held so far.
        limit: Bytes that there may be; None: any number.
        scratch: Whether there is a folder to sum in.

    Returns:
        The way, which takes more than the limit where none takes less: then `peak` says so.
    """
    batches = tuple(member.tile_batch for member in members)
    way = _memory(members, native, batches, now=now, before=before, window=None)
    if limit is None or way.predicting <= limit:
        return way
    while True:
        way = _memory(members, native, batches, now=now, before=before, window=SPILL_WINDOW if scratch else None)
        if way.predicting <= limit or max(batches) == 1:
            break
        batches = tuple(max(1, batch // 2) for batch in batches)
    if way.window is None:
        return way
    # What is left holds more of the file.
    window = way.window + max(0, limit - way.predicting) // len(members)
    return _memory(members, native, batches, now=now, before=before, window=window)


def _memory(
    members: Sequence[MemberSize],
    native: Size,
    batches: tuple[int, ...],
    *,
    now: int,
    before: int,
    window: int | None,
) -> PredictionMemory:
    held = sum(member.sums if window is None else min(window, member.sums) for member in members)
    a_plane = VALUE * members[0].num_classes * math.prod(native[1:])
    resampled = len(members) > 1 or tuple(members[0].grid) != tuple(native)
    planes = (_PLANES_OF_A_MEMBER * len(members) if resampled else 0) + _SHARED_PLANES
    voxels = math.prod(native)
    return PredictionMemory(
        now=now,
        before=before,
        sums=held,
        # The C library may keep the logits of the pass before, freed as they are.
        a_pass=max(m.a_pass(batch) + batch * m.logits for m, batch in zip(members, batches, strict=True)),
        planes=planes * a_plane + sum(member.padded for member in members),
        labels=_LABEL_BYTES * voxels,
        writing=_WRITING_BYTES * voxels,
        window=window,
        spilled=0 if window is None else sum(member.sums for member in members),
        tile_batches=batches,
    )


def pass_bytes(
    network: nn.Module,
    *,
    tile_batch: int,
    channels: int,
    num_classes: int,
    patch_size: Size,
    precision: str,
    channels_last: bool,
    mirrored: bool,
    device: str,
) -> int:
    """Bytes of the machine's memory that one pass over a batch of tiles takes, tiles and logits included.

    Args:
        network: Stays as it is, wherever it is.
        tile_batch: Tiles a pass.
        channels: Of the image.
        num_classes: Of the logits.
        patch_size: Size of a tile.
        precision: What the network computes in.
        channels_last: Whether its weights lie channels last in memory.
        mirrored: Whether mirrored tiles are averaged.
        device: "cpu", "cuda" or "mps".

    Raises:
        CannotPredict: The network cannot be traced.
    """
    logits = VALUE * tile_batch * num_classes * math.prod(patch_size)
    tiles = VALUE * tile_batch * channels * math.prod(patch_size)
    if device != "cpu":
        return logits + tiles
    live, pretence = LiveBytes(threads=torch.get_num_threads()), no_memory()
    state, log = torch.get_rng_state(), logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)  # the error says it, without a traceback
    try:
        with pretence, live:
            memo = stand_ins([network], place="cpu", channels_last=channels_last)
            weights = live.now
        stand_in = copy.deepcopy(network, memo).eval()
        memo.clear()
        with pretence, live, torch.no_grad(), autocast(torch.device("cpu"), precision):
            live.begin()
            image = torch.empty(tile_batch, channels, *patch_size)
            stand_in(image).float()
    except Exception as error:  # whatever a user's network does with a tensor that has no values
        line = str(error).strip().splitlines()
        raise CannotPredict(f"{type(error).__name__}: {line[0][:200] if line else 'no further words'}") from error
    finally:
        torch.set_rng_state(state)
        log.setLevel(level)
    # Mirrored: the sum so far, and the tiles turned round.
    return live.peak - weights + (logits + tiles if mirrored else 0)
