"""SegmentationDataModule: the loaders, and n, the one number that says where training stands."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from segkit.data.fields import STORED_FIELDS
from segkit.data.parallel import worker_context
from segkit.data.patches import Collate, PatchDataset, one_thread
from segkit.data.sampling import Order, ResumableSampler, SamplingRule
from segkit.data.stored_case import StoredCase
from segkit.planning.plan import Plan
from segkit.types import Batch, PreparedCase, Size

_WORKER_TIMEOUT_SECONDS = 300


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
    calls when a step is done, never by what a loader prefetched.

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
        self.n = 0

    @property
    def samples_per_epoch(self) -> int:
        """Samples between two validations of `validation_every_n_epochs=1`; the epoch in keys is n // this."""
        return self._batches_per_epoch * self.plan.batch_size

    def consumed(self, batch: Batch) -> None:
        """A training step has used this batch."""
        self.n = batch.n[-1] + 1

    def state_dict(self) -> dict[str, Any]:
        """The position."""
        return {"n": self.n}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a position."""
        self.n = int(state_dict["n"])

    def train_dataloader(self) -> DataLoader[Any]:
        """From n to the end of its epoch, afresh at every iteration."""
        sampler = ResumableSampler(
            self.train_cases,
            self._rule,
            seed=self._seed,
            batches_per_epoch=self._batches_per_epoch,
            position=lambda: self.n,
        )
        return DataLoader(
            PatchDataset(self.train_cases, source_size=self._rule.source_size, fields=self._needs & STORED_FIELDS),
            batch_sampler=sampler,
            collate_fn=Collate(self._needs, self.plan.num_classes, self.plan.spacing),
            num_workers=self._workers,
            persistent_workers=self._persistent and self._workers > 0,
            pin_memory=torch.cuda.is_available(),
            multiprocessing_context=worker_context() if self._workers else None,
            worker_init_fn=one_thread,
            timeout=_WORKER_TIMEOUT_SECONDS if self._workers else 0,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """The tuning cases, whole, one at a time; memory-mapped, so no worker is needed."""
        return DataLoader(_WholeCases(self.tuning_cases), batch_size=None, collate_fn=_as_it_is)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:  # noqa: ANN401
        """Training batches move asynchronously; whole cases stay where they are, tiles are moved one by one."""
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


class _WholeCases(Dataset[PreparedCase]):
    def __init__(self, cases: Sequence[StoredCase]) -> None:
        self._cases = tuple(cases)

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: int) -> PreparedCase:
        return self._cases[index].load()


def _as_it_is(case: Any) -> Any:  # noqa: ANN401
    return case
