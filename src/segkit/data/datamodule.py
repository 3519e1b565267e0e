"""SegmentationDataModule: the loaders, and n, the one number that says where training stands."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from segkit.data.crumbs import Crumbs
from segkit.data.deliveries import GuardedBatches, Ledger
from segkit.data.fields import STORED_FIELDS
from segkit.data.loader import PREFETCH, Roster, TrainLoader
from segkit.data.patches import Collate, PatchDataset
from segkit.data.sampling import Locatable, Order, ResumableSampler, SamplingRule
from segkit.data.shared_memory import SHM_ADVICE, affordable_workers, free_bytes
from segkit.data.stored_case import StoredCase
from segkit.data.substitutes import OnError, Placeable, Skipping, default_limit
from segkit.errors import DataError
from segkit.ops.ranks import rank, share_of, world_size
from segkit.planning.plan import Plan
from segkit.types import Batch, PreparedCase, Size

logger = logging.getLogger(__name__)


@runtime_checkable
class Augmentation(Protocol):
    """What the data module asks of a recipe (`segkit.augmentation.recipe.Recipe`)."""

    def source_size(self, patch_size: Size) -> Size:
        """Voxels to cut for a patch."""

    def __call__(self, batch: Batch, *, patch_size: Size, seed: int, flip_axes: tuple[int, ...]) -> Batch:
        """Augment a batch on its device."""


class SegmentationDataModule(LightningDataModule):
    """Training batches from (seed, n), validation by whole cases.

    `n`, the number of samples consumed so far, is the only state. It is advanced by `consumed`, which a callback
    calls when a step is done, never by what a loader prefetched. `workers` are the loader processes there really are.

    Args:
        train: Prepared training cases.
        tuning: Prepared tuning cases.
        plan: Patch and batch size, steps per epoch, flips.
        recipe: Augmentation, or None for none.
        seed: Of the run.
        needs: `loss.needs`.
        workers: Loader processes; 0 loads in this one.
        persistent_workers: Keep them from epoch to epoch.
        foreground_oversampling: See `SamplingRule`.
        order: See `SamplingRule`.
        accumulate: Batches of an optimiser step.
        timeout_s: Longest wait for a batch from a loader process in seconds.
        on_error: What follows where a training case cannot be read: "fail", or "skip" for another in its place.
        max_skipped: Most cases that may be left out; None: one in twenty, at least one.
    """

    def __init__(
        self,
        train: Sequence[StoredCase],
        tuning: Sequence[StoredCase],
        *,
        plan: Plan,
        recipe: Augmentation | None,
        seed: int,
        needs: frozenset[str] = frozenset(),
        workers: int = 0,
        persistent_workers: bool = True,
        foreground_oversampling: float = 0.33,
        order: Order = "permutation",
        accumulate: int = 1,
        timeout_s: float = 300.0,
        on_error: OnError = "fail",
        max_skipped: int | None = None,
    ) -> None:
        super().__init__()
        self.train_cases, self.tuning_cases, self.plan = tuple(train), tuple(tuning), plan
        self._recipe, self._seed, self._needs = recipe, seed, needs
        self._workers, self._persistent = workers, persistent_workers
        self._batches_per_epoch = plan.steps_per_epoch * accumulate
        self._rule = SamplingRule(
            patch_size=plan.patch_size,
            source_size=recipe.source_size(plan.patch_size) if recipe else plan.patch_size,
            batch_size=plan.batch_size,
            foreground_oversampling=foreground_oversampling,
            order=order,
        )
        self._timeout_s = timeout_s
        self._skipping: Skipping | None = None
        if on_error == "skip":
            limit = default_limit(len(self.train_cases)) if max_skipped is None else max_skipped
            self._skipping = Skipping(seed, self._rule, limit)
        self._roster = Roster()
        self.workers = 0
        self.n = 0

    @property
    def samples_per_epoch(self) -> int:
        """Samples between two validations of `validation_every_n_epochs=1`; the epoch in keys is n // this."""
        return self._batches_per_epoch * self.plan.batch_size

    def consumed(self, batch: Batch) -> None:
        """A training step has used this batch."""
        size = self.plan.batch_size
        self.n = (batch.n[0] // size + 1) * size  # the whole batch, of which a rank has but its share

    def state_dict(self) -> dict[str, Any]:
        """The position."""
        return {"n": self.n}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a position."""
        self.n = int(state_dict["n"])

    def train_dataloader(self) -> DataLoader[Any]:
        """From n to the end of its epoch, afresh at every iteration."""
        cases: Sequence[Locatable] = self.train_cases
        if self._skipping is not None:
            cases = [Placeable(case) for case in self.train_cases]
        sampler = ResumableSampler(
            cases,
            self._rule,
            seed=self._seed,
            batches_per_epoch=self._batches_per_epoch,
            position=lambda: self.n,
            rank=rank(),
            world_size=world_size(),
        )
        self.workers = workers = self._affordable_workers()
        patches = PatchDataset(
            self.train_cases,
            source_size=self._rule.source_size,
            fields=self._needs & STORED_FIELDS,
            crumbs=Crumbs(workers),
        )
        collate = Collate(self._needs, self.plan.num_classes, self.plan.spacing)
        return TrainLoader(
            GuardedBatches(patches, collate, skipping=self._skipping),
            sampler,
            ledger=Ledger(None if self._skipping is None else self._skipping.max_skipped),
            roster=self._roster,
            workers=workers,
            persistent=self._persistent,
            timeout_s=self._timeout_s,
        )

    def explained(self, error: BaseException) -> DataError | None:
        """What an error that came up anywhere says about a loader process, or None; see `Roster.explained`."""
        return self._roster.explained(error)

    def val_dataloader(self) -> DataLoader[Any]:
        """This rank's tuning cases, whole, one at a time; memory-mapped, so no worker is needed.

        No case is on two ranks. A rank without one gets None, so that it takes part in what all do after validation.
        """
        cases: list[StoredCase | None] = [*share_of(self.tuning_cases)]
        if self.tuning_cases and not cases:
            cases = [None]
        return DataLoader(_WholeCases(cases), batch_size=None, collate_fn=_as_it_is)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:  # noqa: ANN401
        """Training batches move asynchronously; whole cases stay where they are, tiles are moved one by one.

        The loader has put them into page-locked memory, so the host only asks for the copy and goes on. Since nothing
        in a step waits for the device either, the host is here, with the next batch fetched, while the device still
        works on the step before: that is all the prefetching there needs to be.
        """
        del dataloader_idx
        return batch.to(device, non_blocking=True) if isinstance(batch, Batch) else batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ANN401
        """Augment a training batch where the model is; labels become int64 only now."""
        del dataloader_idx
        if not isinstance(batch, Batch):
            return batch
        if self._recipe is not None:
            batch = self._recipe(batch, patch_size=self.plan.patch_size, seed=self._seed, flip_axes=self.plan.flip_axes)
        return replace(batch, target=replace(batch.target, label=batch.target.label.long()))

    def room_for(self, workers: int) -> int:
        """How many of so many loader processes there is shared memory for."""
        free = free_bytes()
        return affordable_workers(workers, batch_bytes=self._batch_bytes, prefetch=PREFETCH, free=free)

    @property
    def _batch_bytes(self) -> int:
        """Of one batch on its way, at most."""
        voxel_bytes = 4 * len(self.plan.channels) + 4 * (1 + len(self._needs & STORED_FIELDS)) + 1
        return self._rule.batch_size * math.prod(self._rule.source_size) * voxel_bytes

    def _affordable_workers(self) -> int:
        """Loader processes: as asked, or as many as there is shared memory for."""
        if not self._workers:
            return 0
        free, workers = free_bytes(), self.room_for(self._workers)
        if free is not None and workers < self._workers:
            logger.warning(
                "data.workers=%d -> %d: a batch takes %.0f MB of shared memory, and /dev/shm has %.0f MB free; %s",
                *(self._workers, workers, self._batch_bytes / 1e6, free / 1e6, SHM_ADVICE),
            )
        return workers


class _WholeCases(Dataset[PreparedCase | None]):
    def __init__(self, cases: Sequence[StoredCase | None]) -> None:
        self._cases = tuple(cases)

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: int) -> PreparedCase | None:
        case = self._cases[index]
        return None if case is None else case.load()


def _as_it_is(case: Any) -> Any:  # noqa: ANN401
    return case
