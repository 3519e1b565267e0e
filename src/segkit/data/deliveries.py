"""What a loader worker hands over: a batch, or in plain words why there is none. Never an exception.

An exception that cannot be pickled is lost between two processes, and the one that waits for it waits for ever;
one that can loses its parts. So a worker describes every fault, and the training process decides what follows.
"""

import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from segkit.data.patches import Collate, PatchDataset, Sample
from segkit.data.sampling import Draw
from segkit.data.shared_memory import SHM_ADVICE
from segkit.data.stored_case import is_shortage, unreadable
from segkit.data.substitutes import Skipping, check_locations
from segkit.errors import DataError, SegkitError, StorageError
from segkit.types import Batch, Target

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fault:
    """Why a case could not be read, or a batch not be made.

    Args:
        case_id: The case, or the cases of the batch.
        error: With case, file, cause and worker.
        traceback: Of the original exception.
        skippable: Whether it lies in the case, which another can stand in for.
    """

    case_id: str
    error: SegkitError
    traceback: str
    skippable: bool


@dataclass(frozen=True)
class Delivery:
    """A batch and what was met on the way to it; without a batch the last fault says why."""

    batch: Batch | None
    faults: tuple[Fault, ...] = ()

    def pin_memory(self) -> "Delivery":
        """The same with the batch in page-locked memory; the DataLoader calls this."""
        return self if self.batch is None else replace(self, batch=self.batch.pin_memory())


class GuardedBatches(Dataset[Delivery]):
    """Batches of patches, for the DataLoader to ask for by lists of draws.

    Args:
        patches: Cuts a patch.
        collate: Puts samples together.
        skipping: How to go on without a case that cannot be read; None: not at all.
    """

    def __init__(self, patches: PatchDataset, collate: Collate, *, skipping: Skipping | None = None) -> None:
        self._patches, self._collate, self._skipping = patches, collate, skipping

    def __getitems__(self, draws: Sequence[Draw]) -> Delivery:
        """One batch; raises nothing but KeyboardInterrupt and SystemExit."""
        samples: list[Sample] = []
        faults: list[Fault] = []
        for draw in draws:
            sample = self._sample(draw, faults)
            if sample is None:
                return Delivery(None, tuple(faults))
            samples.append(sample)
        try:
            return Delivery(self._batch(samples, draws), tuple(faults))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            told = error if isinstance(error, SegkitError) else _misfit(samples, error)
            return Delivery(None, (*faults, _fault(_names(samples), told, skippable=False)))
        finally:
            self._patches.crumbs.drop("waiting")

    def place(self, worker: int) -> str:
        """What a worker is at, or was when it died: case, file, sample."""
        crumb = self._patches.crumbs.last(worker)
        if crumb.activity == "waiting":
            return "between two batches"
        case = self._patches.cases[crumb.case]
        if crumb.activity == "batch":
            return f"putting together the batch of sample n={crumb.n} (case {case.case_id}, {case.folder})"
        return f"case {case.case_id}, {case.path(crumb.activity)}, sample n={crumb.n}"

    def _sample(self, wanted: Draw, faults: list[Fault]) -> Sample | None:
        """The sample, of another case where its own cannot be read; None where the last fault ends the run."""
        if self._skipping is None:
            return self._attempt(wanted, wanted.case, faults)
        for index in self._skipping.candidates(wanted.n, wanted.case, len(self._patches.cases)):
            sample = self._attempt(wanted, index, faults)
            if sample is not None or not faults[-1].skippable:
                return sample
            if len({fault.case_id for fault in faults}) > self._skipping.max_skipped:
                return None
        return None

    def _attempt(self, wanted: Draw, index: int, faults: list[Fault]) -> Sample | None:
        case, draw = self._patches.cases[index], wanted
        try:
            if self._skipping is not None:
                # Whether a case can be read must not depend on whether this sample looks for foreground in it.
                self._patches.crumbs.drop("locations", n=wanted.n, case=index)
                check_locations(case)
                if index != wanted.case:
                    draw = self._skipping.draw_in(case, index, wanted.n)
            return self._patches[draw]
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            told = error if isinstance(error, SegkitError) else unreadable(case, "locations", error)
            cause = told.__cause__ or error
            mine = isinstance(told, DataError) and isinstance(cause, Exception) and not is_shortage(cause)
            faults.append(_fault(case.case_id, told, skippable=mine))
            return None

    def _batch(self, samples: Sequence[Sample], draws: Sequence[Draw]) -> Batch:
        self._patches.crumbs.drop("batch", n=draws[0].n, case=draws[0].case)
        batch = self._collate(samples)
        if get_worker_info() is not None:
            _share(batch)
        return batch


class Ledger:
    """Keeps the cases that were left out, in the training process.

    Args:
        max_skipped: Most cases that may be; None: none may.
    """

    def __init__(self, max_skipped: int | None) -> None:
        self._max_skipped = max_skipped
        self._skipped: dict[str, Fault] = {}

    @property
    def skipped(self) -> tuple[str, ...]:
        """Cases left out so far."""
        return tuple(self._skipped)

    def accept(self, delivery: Delivery) -> Batch:
        """The batch of a delivery; each case that it had to do without is named once.

        Raises:
            SegkitError: There is no batch, or too many cases were left out.
        """
        for fault in delivery.faults:
            if self._max_skipped is None or not fault.skippable:
                logger.info("%s", fault.traceback)
                raise fault.error
            if fault.case_id not in self._skipped:
                self._skip(fault, self._max_skipped)
        if delivery.batch is None:
            raise delivery.faults[-1].error
        return delivery.batch

    def _skip(self, fault: Fault, most: int) -> None:
        self._skipped[fault.case_id] = fault
        logger.info("%s", fault.traceback)
        error = fault.error
        if len(self._skipped) > most:
            raise DataError(
                f"{len(self._skipped)} cases cannot be read, and data.max_skipped={most}",
                where="; ".join(one.error.where for one in self._skipped.values()),
                why="; ".join(dict.fromkeys(one.error.why for one in self._skipped.values())),
                mend=f"{error.mend}; or allow more by data.max_skipped",
            )
        logger.warning("left out (%d of at most %d): %s (%s)", len(self._skipped), most, error.where, error.why)


def _fault(case_id: str, error: SegkitError, *, skippable: bool) -> Fault:
    """The fault of the exception that is being handled; names the worker if this is one."""
    worker = get_worker_info()
    where = error.where if worker is None else f"{error.where}, loader worker {worker.id}"
    told = type(error)(error.what, where=where, why=error.why, mend=error.mend)
    return Fault(case_id, told, traceback.format_exc(), skippable)


def _misfit(samples: Sequence[Sample], error: BaseException) -> DataError:
    shapes = {sample.case_id: {name: array.shape for name, array in sample.arrays.items()} for sample in samples}
    return DataError(
        "samples cannot be put together to a batch",
        where=f"cases {_names(samples)}",
        why=f"{traceback.format_exception_only(error)[-1].strip()}; found {shapes}",
        mend="run the same command again: damaged entries are made anew",
    )


def _names(samples: Sequence[Sample]) -> str:
    return ", ".join(dict.fromkeys(sample.case_id for sample in samples))


def _share(batch: Batch) -> None:
    """Move a batch to shared memory, in place; the queue's own thread would lose the error if there is no room."""
    try:
        for record in (batch, batch.target):
            _share_tensors(record)
    except RuntimeError as error:
        raise StorageError(
            "a batch cannot be handed over: there is no room in shared memory",
            where=f"/dev/shm, cases {', '.join(dict.fromkeys(batch.case_id))}",
            why=str(error),
            mend=SHM_ADVICE,
        ) from error


def _share_tensors(record: Batch | Target) -> None:
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Tensor):
            value.share_memory_()  # type: ignore[no-untyped-call]
