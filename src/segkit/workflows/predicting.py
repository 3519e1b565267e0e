"""Images one after the other: while one is predicted the next one is read and the last mask is written."""

import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Int
from torch import Tensor

from segkit.data.readers import read
from segkit.errors import DataError
from segkit.evaluation.native import Average, native_labels
from segkit.inference.postprocessing import PostProcessing
from segkit.inference.sliding_window import count_tiles
from segkit.inference.sums import SPILL_WINDOW
from segkit.ops.lack_of_memory import is_out_of_memory
from segkit.planning.prediction_memory import PredictionMemory
from segkit.types import Case, Geometry, PreparedCase
from segkit.workflows.beside import ReadAhead, WriteBehind
from segkit.workflows.contact_sheet import ContactSheet
from segkit.workflows.loading import TrainedRun, prepare_for, streams
from segkit.workflows.masks import write_mask
from segkit.workflows.memory_limit import MemoryLimit
from segkit.workflows.probabilities import Probabilities
from segkit.workflows.tile_bar import TileBar


@dataclass(frozen=True)
class Job:
    """An image to predict.

    Args:
        heading: What its line begins with.
        case: The image.
        target: Where its mask goes.
        probabilities: Where its probabilities go, if they are wanted.
        sheet: Draws it, if that is wanted.
    """

    heading: str
    case: Case
    target: Path
    probabilities: Path
    sheet: ContactSheet | None = None


Faults: TypeAlias = list[tuple[Job, DataError]]
Reader: TypeAlias = ReadAhead[Job, list[PreparedCase]]


class Predicting:
    """Predicts images by several runs within a limit of memory; an image that fails is noted, and the next one begun.

    Args:
        limit: Knows the runs and what they may take.
        average: What of the runs is averaged.
        probabilities: Whether the probabilities are written too.
        postprocessing: What is changed in the masks; the probabilities stay as they are.
    """

    def __init__(
        self,
        limit: MemoryLimit,
        *,
        average: Average = "logits",
        probabilities: bool = False,
        postprocessing: PostProcessing | None = None,
    ) -> None:
        self.limit, self.average, self.probabilities = limit, average, probabilities
        self.postprocessing = postprocessing or PostProcessing()
        self.faults: Faults = []
        self._bar, self._told, self._writing = TileBar(), 0, 0

    def all(self, jobs: Sequence[Job], *, kept: Collection[Path] = ()) -> Faults:
        """Predict and write all images but those whose masks are kept; a line each, in their order.

        Returns:
            The images that could not be predicted, and why, in their order.
        """
        members, done = self.limit.members, set(kept)
        todo = [job for job in jobs if job.target not in done]
        after = dict(zip((job.target for job in todo), todo[1:], strict=False))
        with ExitStack() as end:
            reader = end.enter_context(closing(_reader(members)))
            writer = end.enter_context(closing(WriteBehind()))
            for member in members:
                end.callback(setattr, member.predictor, "before_pass", member.predictor.before_pass)
                member.predictor.before_pass = self._bar.step
            for job in jobs:
                if job.target in done:
                    writer.wait()
                    self._say(f"{job.heading}  kept, was there: {job.target}")
                    continue
                try:
                    self._one(job, after.get(job.target), reader, writer)
                except DataError as error:
                    writer.wait()
                    self._fail(job, error)
        return self.faults

    def _one(self, job: Job, following: Job | None, reader: Reader, writer: WriteBehind) -> None:
        started = time.perf_counter()
        prepared = reader.get(job)
        way = self.limit.fit(prepared)
        beside = self._writing if writer.busy else 0
        if beside and not self.limit.has_room(way, beside):
            writer.wait()
            beside, way = 0, self.limit.fit(prepared)
        if following is not None and self.limit.has_room(way, beside + way.reading):
            beside += way.reading
            reader.begin(following)
        way = replace(way, beside=beside)
        if way.peak > 1.05 * self._told:
            self._told = way.peak
            self._say(f"memory: {way.text()} predicted{self.limit.text(way)}")
        tiles = (
            count_tiles(case.image.shape[1:], one.predictor.patch_size, one.predictor.step) / batch
            for one, case, batch in zip(self.limit.members, prepared, way.tile_batches, strict=True)
        )
        self._bar.begin(job.heading, round(sum(tiles)))
        geometry, kept = prepared[0].geometry, None
        if self.probabilities:
            kept = Probabilities(self.limit.members[0].plan.num_classes, geometry, scratch=self.limit.scratch)
        prediction = self._predict(job.case, prepared, way, kept)
        self._writing = way.writing
        work = partial(self._write, job, prediction, geometry, kept)
        writer.submit(work, done=partial(self._written, job, started))

    def _predict(
        self, case: Case, prepared: list[PreparedCase], way: PredictionMemory, kept: Probabilities | None
    ) -> Int[np.ndarray, "..."]:
        """Classes of the native voxels; the prepared image is given up.

        Raises:
            DataError: The logits are not finite, or the memory does not last.
        """
        geometry = prepared[0].geometry
        scratch = None if way.window is None else self.limit.scratch
        sources = [
            replace(stream, blocks=_finite(stream.blocks, case))
            for stream in streams(self.limit.members, prepared, scratch=scratch, window=way.window or SPILL_WINDOW)
        ]
        prepared.clear()
        try:
            return native_labels(sources, geometry, average=self.average, keep=kept.keep if kept else None)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            said = str(error).strip().splitlines()
            raise DataError(
                "the memory did not last for this image",
                where=f"case {case.case_id}",
                why=said[0][:300] if said else type(error).__name__,
                mend="memory_gb=<less than it took>; or trainer.accelerator=cpu where it was a GPU's",
            ) from error

    def _write(
        self, job: Job, prediction: Int[np.ndarray, "..."], geometry: Geometry, kept: Probabilities | None
    ) -> None:
        """The mask comes last: where it is, all is there."""
        labels = self.limit.members[0].plan.labels
        # Before the image is read again, so that both together take no more than writing does.
        prediction = self.postprocessing.apply(prediction, spacing=geometry.native_spacing, labels=labels)
        like = read(job.case.images[0], role="image", case=job.case.case_id)
        if kept is not None:
            kept.write(job.probabilities, like=like)
        else:
            job.probabilities.unlink(missing_ok=True)  # those of a mask that is replaced
        if job.sheet is not None:
            job.sheet.draw(job.target, like, prediction)
        write_mask(job.target, prediction, geometry=geometry, labels=labels, like=like)

    def _written(self, job: Job, started: float, future: Future[None]) -> None:
        error = future.exception()
        if isinstance(error, DataError):
            self._fail(job, error)
        elif error is not None:
            raise error
        else:
            self._say(f"{job.heading}  {job.target}  ({time.perf_counter() - started:.1f} s)")

    def _fail(self, job: Job, error: DataError) -> None:
        self.faults.append((job, error))
        self._say(f"{job.heading}  NOT PREDICTED: {error.what}")

    def _say(self, line: str) -> None:
        self._bar.clear()
        print(line, flush=True)


def _reader(members: Sequence[TrainedRun]) -> Reader:
    return ReadAhead(lambda job: prepare_for(members, job.case))


def _finite(blocks: Iterator[Tensor], case: Case) -> Iterator[Tensor]:
    """The same blocks, each looked at first.

    Raises:
        DataError: One holds NaN or Inf.
    """
    for block in blocks:
        # A sum is finite where all are; where it is not, finite numbers may still have grown beyond float32.
        if not bool(block.sum().isfinite()) and not bool(block.isfinite().all()):
            raise DataError(
                "the network's output is not finite",
                where=f"case {case.case_id}",
                why="NaN or Inf in the logits",
                mend="look at the image's intensities; or trainer.precision=32-true",
            )
        yield block
