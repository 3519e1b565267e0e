"""Which patch is the n-th: a pure function of (seed, n), and the sampler that runs from n to the epoch's end.

n counts the samples that training has consumed. The position in the batch is n modulo the batch size, the pass
over the cases is n divided by their number: nothing else is state, so what workers had prefetched when a run
stopped is simply drawn again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from torch.utils.data import Sampler

from segkit.errors import UsageError
from segkit.ops.keyed_random import generator
from segkit.types import Size

Order: TypeAlias = Literal["permutation", "replacement"]

PATCH_STREAM = 0
ORDER_STREAM = 4


class Draw(NamedTuple):
    """One sample, before anything is read.

    Args:
        n: Running number of the sample.
        case: Index of the case.
        start: First voxel of the source patch by axis; negative where it begins outside the image.
    """

    n: int
    case: int
    start: tuple[int, ...]


@runtime_checkable
class Locatable(Protocol):
    """What a draw needs to know of a case."""

    @property
    def shape(self) -> Size:
        """Voxels."""

    @property
    def classes(self) -> tuple[int, ...]:
        """Foreground classes that occur."""

    @property
    def locations(self) -> Mapping[int, tuple[int, int]]:
        """Rows of the kept voxels of each class: first, last + 1."""

    def location(self, index: int, row: int) -> tuple[int, ...]:
        """A voxel of a class."""


@dataclass(frozen=True)
class SamplingRule:
    """Everything but (seed, n) that a draw depends on.

    Args:
        patch_size: Voxels that the network will see.
        source_size: Voxels to cut, at least as many: room for rotation and scaling.
        batch_size: Samples of a batch.
        foreground_oversampling: Share of a batch that is centred on foreground: the last round(batch x share)
            samples of each, or each sample with that probability where the product rounds to none.
        order: "permutation": every case once a pass, in keyed order; "replacement": drawn independently.
    """

    patch_size: Size
    source_size: Size
    batch_size: int
    foreground_oversampling: float = 0.33
    order: Order = "permutation"

    @property
    def num_forced(self) -> int:
        """Samples at the end of each batch that are centred on foreground."""
        return round(self.batch_size * self.foreground_oversampling)


def draw(seed: int, n: int, cases: Sequence[Locatable], rule: SamplingRule) -> Draw:
    """The n-th sample.

    The patch lies inside the image where it fits, and is centred on it where it does not, by axis. The source
    patch has the same centre. A forced sample has a random voxel of a random foreground class at its centre, as
    far as the patch stays inside the image; a case without foreground gives a random patch instead.
    """
    rng = generator(seed, n, PATCH_STREAM)
    index = case_of(seed, n, len(cases), order=rule.order)
    case = cases[index]
    random_starts = [_start_between(rng, size, patch) for size, patch in zip(case.shape, rule.patch_size, strict=True)]
    # Drawn in any case, so that the numbers after it do not depend on the branch.
    chance = float(rng.random())
    forced = n % rule.batch_size >= rule.batch_size - rule.num_forced
    if rule.num_forced == 0:
        forced = chance < rule.foreground_oversampling
    starts = random_starts
    if forced and case.classes:
        label = case.classes[int(rng.integers(len(case.classes)))]
        first, end = case.locations[label]
        voxel = case.location(label, int(rng.integers(end - first)))
        starts = [
            _start_around(centre, size, patch)
            for centre, size, patch in zip(voxel, case.shape, rule.patch_size, strict=True)
        ]
    margins = [(source - patch) // 2 for source, patch in zip(rule.source_size, rule.patch_size, strict=True)]
    return Draw(n, index, tuple(start - margin for start, margin in zip(starts, margins, strict=True)))


def case_of(seed: int, n: int, num_cases: int, *, order: Order) -> int:
    """Index of the case of the n-th sample."""
    if order == "replacement":
        return int(generator(seed, n, ORDER_STREAM).integers(num_cases))
    return _permutation(seed, n // num_cases, num_cases)[n % num_cases]


@lru_cache(maxsize=8)
def _permutation(seed: int, pass_: int, num_cases: int) -> tuple[int, ...]:
    """Order of the cases in one pass."""
    return tuple(int(i) for i in generator(seed, pass_, ORDER_STREAM).permutation(num_cases))


def _start_between(rng: np.random.Generator, size: int, patch: int) -> int:
    """Uniform over all positions inside the image; centred where the patch is the larger one."""
    # A number is drawn in either case: an axis that fits must not shift what the next axis gets.
    position = float(rng.random())
    return int(position * (size - patch + 1)) if patch < size else -((patch - size) // 2)


def _start_around(centre: int, size: int, patch: int) -> int:
    """The voxel at the centre, moved as far as needed to stay inside the image."""
    if patch >= size:
        return -((patch - size) // 2)
    return min(max(centre - patch // 2, 0), size - patch)


def samples_of_a_rank(batch_size: int, world_size: int) -> int:
    """How many samples of each batch a rank gets.

    Raises:
        UsageError: They cannot be shared out evenly; the mean over the ranks would not be the mean over the batch.
    """
    if batch_size % world_size:
        raise UsageError(
            "The samples of a batch cannot be shared out evenly.",
            where=f"trainer.devices={world_size}",
            why=f"a batch has {batch_size} samples in all, whatever the number of devices",
            mend=f"plan.batch_size={world_size * -(-batch_size // world_size)} in a run of its own, or as many devices "
            f"as divide {batch_size}",
        )
    return batch_size // world_size


class ResumableSampler(Sampler[list[Draw]]):
    """Batches of draws from the present position to the end of its epoch.

    The position is asked for when an iteration begins and belongs to the data module, which advances it by what
    was consumed. `len()` is the whole epoch's, which is what Lightning counts by.

    Args:
        cases: Training cases.
        rule: See `SamplingRule`.
        seed: Of the run.
        batches_per_epoch: Optimiser steps x accumulated batches.
        position: Returns n.
        rank: Number of this process among those that share each batch.
        world_size: How many they are; they change which process draws a sample, never which sample is the n-th.

    Raises:
        UsageError: A batch cannot be shared out evenly.
    """

    def __init__(
        self,
        cases: Sequence[Locatable],
        rule: SamplingRule,
        *,
        seed: int,
        batches_per_epoch: int,
        position: Callable[[], int],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._cases, self._rule, self._seed = cases, rule, seed
        self._batches_per_epoch, self._position = batches_per_epoch, position
        share = samples_of_a_rank(rule.batch_size, world_size)
        self._part = slice(rank * share, (rank + 1) * share)

    @property
    def samples_per_epoch(self) -> int:
        """Samples of a whole epoch."""
        return self._batches_per_epoch * self._rule.batch_size

    def __len__(self) -> int:
        return self._batches_per_epoch

    def __iter__(self) -> Iterator[list[Draw]]:
        n = self._position()
        end = (n // self.samples_per_epoch + 1) * self.samples_per_epoch
        while n < end:
            batch = range(n, min(n + self._rule.batch_size, end))
            yield [draw(self._seed, i, self._cases, self._rule) for i in batch[self._part]]
            n += self._rule.batch_size
