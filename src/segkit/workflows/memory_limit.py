"""How much of the machine's memory a prediction may take, and the way in which it keeps to that."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from segkit.errors import DataError
from segkit.inference.predictor import Predictor
from segkit.inference.sliding_window import sums_device
from segkit.networks.memory_format import lies_channels_last
from segkit.ops.freed_memory import give_back_freed_memory
from segkit.planning.free_memory import free_bytes, resident_bytes
from segkit.planning.prediction_memory import READING_BYTES, MemberSize, PredictionMemory, fitted, pass_bytes
from segkit.planning.training_memory import CannotPredict, size_text
from segkit.types import PreparedCase
from segkit.workflows.loading import TrainedRun

_GB = 10**9
UNCOUNTED = 64 * 10**6
"""Bytes that no sum of tensors tells: libraries read from the disk at their first use, 17 and 22 MB measured, and what
the C library keeps of freed blocks where the next ones do not fit into them, up to 30 MB in runs that differed in
nothing else."""
_LEFT_FREE = 0.1
"""Share of the free memory that is not counted on where no limit was given: others want some too."""
_logger = logging.getLogger(__name__)


class MemoryLimit:
    """Chooses, image by image, how it is predicted; see `planning.prediction_memory`.

    Args:
        members: The runs that predict.
        memory_gb: What the process may take, GB of a thousand; None: what it has and what is free.
        scratch: Folder of files to sum in where the memory is not enough.
    """

    def __init__(self, members: Sequence[TrainedRun], *, memory_gb: float | None, scratch: Path) -> None:
        self.members, self.scratch = tuple(members), scratch
        self._limit = None if memory_gb is None else round(memory_gb * _GB)
        self._own = [member.predictor.tile_batch for member in members]
        self._set = list(self._own)
        self._passes: dict[tuple[int, int], int] = {}

    def fit(self, prepared: Sequence[PreparedCase]) -> PredictionMemory:
        """The way to predict an image that is in memory; sets the tiles a pass.

        Raises:
            DataError: Whatever is done, it takes more than it may.
        """
        way, limit = self._way(prepared)
        if way.window is not None and give_back_freed_memory():
            way, limit = self._way(prepared)
        if limit is not None and way.predicting > limit:
            raise DataError(
                "the image does not fit into the memory that may be taken",
                where=f"case {prepared[0].case_id}",
                why=f"{way.text()} predicted, of {size_text(limit)}",
                mend=f"memory_gb={way.predicting / _GB * 1.05:.1f}, or a machine with more memory",
            )
        for k, member in enumerate(self.members):
            member.predictor.tile_batch = self._set[k] = way.tile_batches[k]
        voxels = prepared[0].image.shape[0] * math.prod(prepared[0].geometry.native_shape)
        return replace(way, reading=READING_BYTES * voxels)

    def _way(self, prepared: Sequence[PreparedCase]) -> tuple[PredictionMemory, int | None]:
        """The best way as things stand, and the limit that it was held against."""
        sizes = [self._size_of(k, case) for k, case in enumerate(prepared)]
        native = tuple(stop - start for start, stop in prepared[0].geometry.crop)
        for size in sizes:
            size.a_pass(size.tile_batch)  # what tracing loads is there for good, and shall be counted
        now, before = resident_bytes() or (0, 0)
        limit = self.limit(now)
        return fitted(sizes, native, now=now + UNCOUNTED, before=before, limit=limit), limit

    def limit(self, now: int) -> int | None:
        """Bytes that the process may hold, of which it holds `now`; None where nothing is known."""
        if self._limit is not None:
            return self._limit
        free = free_bytes("cpu")
        return None if free is None else now + round((1 - _LEFT_FREE) * free)

    def text(self, way: PredictionMemory) -> str:
        """Of how much it is, for people; "" where that is not known."""
        limit = self.limit(way.now)
        return "" if limit is None else f" of {size_text(limit)}"

    def has_room(self, way: PredictionMemory, more: int) -> bool:
        """Whether so many bytes more may be taken while an image is predicted."""
        limit = self.limit(way.now)
        return limit is None or way.predicting + more <= limit

    def _size_of(self, k: int, case: PreparedCase) -> MemberSize:
        predictor = self.members[k].predictor
        if predictor.tile_batch < self._set[k]:  # it ran out of memory since
            self._own[k] = predictor.tile_batch
        grid = tuple(case.image.shape[1:])
        row = (predictor.patch_size[0], *(max(n, p) for n, p in zip(grid[1:], predictor.patch_size[1:], strict=True)))
        return MemberSize(
            num_classes=predictor.num_classes,
            grid=grid,
            patch_size=predictor.patch_size,
            tile_batch=self._own[k],
            a_pass=partial(self._pass, k, predictor, case.image.shape[0]),
            on_device=sums_device(predictor.num_classes, row, predictor.device).type == "cuda",
        )

    def _pass(self, k: int, predictor: Predictor, channels: int, tile_batch: int) -> int:
        """Bytes of a pass; 0, and a word of it, where the network cannot be traced."""
        if (k, tile_batch) not in self._passes:
            try:
                size = pass_bytes(
                    predictor.network,
                    tile_batch=tile_batch,
                    channels=channels,
                    num_classes=predictor.num_classes,
                    patch_size=predictor.patch_size,
                    precision=predictor.precision,
                    channels_last=lies_channels_last(predictor.network),
                    mirrored=bool(predictor.mirror_axes),
                    device=predictor.device.type,
                )
            except CannotPredict as error:
                _logger.warning("the memory of a pass is not predicted, and not counted: %s", error)
                size = 0
            self._passes[k, tile_batch] = size
        return self._passes[k, tile_batch]
