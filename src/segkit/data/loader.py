"""The loader of training batches: whatever happens to a worker, the one that waits for it is told, in time.

torch looks after workers that are children of the training process. Ours are children of a server, so no signal
tells of their death, and torch would find out when its timeout has passed. Here a dead worker is noticed within a
second, and one that hangs is killed when the timeout has passed.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from segkit.data.deadline import Deadline
from segkit.data.deliveries import GuardedBatches, Ledger
from segkit.data.parallel import worker_context
from segkit.data.patches import begin_worker
from segkit.data.sampling import Draw
from segkit.data.worker_death import died, hung
from segkit.errors import DataError, SegkitError
from segkit.types import Batch

PREFETCH = 2
"""Batches that each worker has under way."""

_LOOK_EVERY_S = 0.5
_SERVER_TELLS_WITHIN_S = 2
_TORCH_SAYS = re.compile(r"DataLoader worker \(pid(?:\(s\))? (?P<pids>\d+(?:, \d+)*)\)")


@dataclass(frozen=True)
class Crew:
    """The workers of one iteration, also after their end.

    Args:
        workers: By number.
        batches: Knows where each is at work.
    """

    workers: tuple[BaseProcess, ...]
    batches: GuardedBatches

    @property
    def dead(self) -> set[int]:
        """Process ids of those that live no more."""
        return {worker.pid or 0 for worker in self.workers if not worker.is_alive()}

    def obituary(self, pids: Collection[int]) -> DataError | None:
        """Of dead workers, by their process ids; None where none of them is ours."""
        ours = [number for number, worker in enumerate(self.workers) if worker.pid in pids]
        if not ours:
            return None
        return died(
            {number: self.batches.place(number) for number in ours},
            {number: self.workers[number].exitcode for number in ours},
        )

    def dismiss(self) -> None:
        """End all that are left: one that hangs does not hear anything gentler."""
        for worker in self.workers:
            worker.kill()
        for worker in self.workers:
            worker.join(timeout=5)


class Roster:
    """Who the workers are, for those who ask outside of the loader.

    It knows no loader: a loader that something else holds in a cycle is not shut down when its last user is gone,
    but some time later and in the wrong order, which takes torch five seconds a worker.
    """

    def __init__(self) -> None:
        self.crew: Crew | None = None

    def explained(self, error: BaseException) -> DataError | None:
        """What an error that came up somewhere in the training process says about a worker, or None.

        Where workers are children of this process, torch raises from a signal handler: in the middle of anything.
        """
        found = _TORCH_SAYS.search(str(error)) if isinstance(error, RuntimeError) else None
        if found is None or self.crew is None:
            return None
        return self.crew.obituary([int(pid) for pid in found["pids"].split(", ")])


class TrainLoader(DataLoader[Any]):
    """Training batches, by worker processes or in this one.

    Args:
        batches: Makes a batch of a list of draws.
        sampler: The lists of draws.
        ledger: Takes the deliveries.
        roster: Is told who the workers are.
        workers: Loader processes; 0: none.
        persistent: Keep them from one iteration to the next.
        timeout_s: Longest wait for a batch in seconds, with workers.
    """

    def __init__(
        self,
        batches: GuardedBatches,
        sampler: Sampler[list[Draw]],
        *,
        ledger: Ledger,
        roster: Roster,
        workers: int,
        persistent: bool,
        timeout_s: float,
    ) -> None:
        super().__init__(
            batches,
            batch_sampler=sampler,
            collate_fn=_unpacked_later,
            num_workers=workers,
            prefetch_factor=PREFETCH if workers else None,
            persistent_workers=persistent and workers > 0,
            pin_memory=torch.cuda.is_available(),
            multiprocessing_context=worker_context() if workers else None,
            worker_init_fn=begin_worker,
        )
        self.batches, self.timeout_s = batches, timeout_s
        self._ledger, self._roster = ledger, roster

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Batches of one epoch.

        Raises:
            DataError: A case cannot be read, or a worker died or hung; names worker, case and file.
            StorageError: A batch finds no room in shared memory.
        """
        return self._accepted(super().__iter__())

    def _accepted(self, deliveries: Iterator[Any]) -> Iterator[Batch]:
        for delivery in deliveries:
            try:
                batch = self._ledger.accept(delivery)
            except SegkitError:
                if isinstance(deliveries, _WatchedIterator):
                    deliveries._shutdown_workers()  # now, and not when the error's traceback is forgotten
                raise
            yield batch

    def _get_iterator(self) -> _BaseDataLoaderIter:
        if self.num_workers == 0:
            return super()._get_iterator()
        self.check_worker_number_rationality()
        iterator = _WatchedIterator(self)
        self._roster.crew = iterator.crew
        return iterator


class _WatchedIterator(_MultiProcessingDataLoaderIter):
    """Torch's, which looks after its workers while it waits."""

    def __init__(self, loader: TrainLoader) -> None:
        self._deadline = Deadline(loader.timeout_s)
        super().__init__(loader)
        self.crew = Crew(tuple(self._workers), loader.batches)
        self._deadline.start([worker.pid or 0 for worker in self._workers])

    def _get_data(self) -> Any:  # noqa: ANN401  torch's
        with self._deadline:
            while True:
                try:
                    success, data = self._try_get_data(_LOOK_EVERY_S)  # type: ignore[no-untyped-call]
                except (OSError, EOFError, RuntimeError) as error:
                    # The memory of a batch comes from the worker itself, whose end may show here first.
                    wait([worker.sentinel for worker in self._workers], timeout=_SERVER_TELLS_WITHIN_S)
                    lost = self._lost()
                    if lost is None:
                        raise
                    raise lost from error
                if self._deadline.passed and (lost := self._lost()):
                    raise lost
                if success:
                    return data
                if self._pin_memory and not self._pin_memory_thread.is_alive():
                    raise RuntimeError("the thread that pins memory ended unexpectedly")

    def _lost(self) -> DataError | None:
        """Why there will be no batch; None where all workers are well. Ends those that are left."""
        if self._deadline.passed:
            error: DataError | None = hung(self._late(), seconds=self._deadline.seconds)
        else:
            error = self.crew.obituary(self.crew.dead)
        if error is not None:
            self.crew.dismiss()
            self._shutdown_workers()
        return error

    def _late(self) -> dict[int, str]:
        """What the worker that is waited for was at; where that is not known, what all were at."""
        awaited = self._task_info.get(self._rcvd_idx)
        numbers = [awaited[0]] if awaited else range(len(self._workers))
        return {number: self.crew.batches.place(number) for number in numbers}

    def _shutdown_workers(self) -> None:
        self._deadline.close()
        super()._shutdown_workers()


def _unpacked_later(delivery: Any) -> Any:  # noqa: ANN401  a Delivery
    return delivery
