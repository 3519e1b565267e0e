"""Cutting patches from memory-mapped cases and putting them together to a batch.

This is all that a worker does, some hundred microseconds a sample: augmentation happens on the device, by batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import Dataset

from segkit.data.crumbs import Crumbs
from segkit.data.parallel import die_with_parent
from segkit.data.sampling import Draw
from segkit.data.stored_case import StoredCase, unreadable
from segkit.errors import SegkitError
from segkit.losses.partial_labels import classes_present
from segkit.ops.instances import compact
from segkit.types import ID_FIELDS, Batch, Size, Spacing, Target

Patch: TypeAlias = dict[str, np.ndarray]


@dataclass(frozen=True)
class Sample:
    """One cut patch.

    Args:
        n: Running number.
        case_id: Case.
        arrays: By field: image (C, *S), label (*S), valid (*S) bool, instances, cells.
        annotated: The foreground classes annotated in the case, by index; None: all of them.
    """

    n: int
    case_id: str
    arrays: Patch
    annotated: frozenset[int] | None = None


class PatchDataset(Dataset[Sample]):
    """The patch of a draw.

    Args:
        cases: Training cases, in the order that `Draw.case` counts.
        source_size: Voxels to cut.
        fields: Extra arrays to cut: "instances", "cells".
        crumbs: Told of every array before it is read.
    """

    def __init__(
        self,
        cases: Sequence[StoredCase],
        *,
        source_size: Size,
        fields: frozenset[str] = frozenset(),
        crumbs: Crumbs | None = None,
    ) -> None:
        self.cases, self._source_size = tuple(cases), tuple(source_size)
        self.crumbs = crumbs or Crumbs(0)
        self._fields = ("image", "label", *sorted(fields))

    def __getitem__(self, index: Draw) -> Sample:
        """Cut one patch.

        Raises:
            DataError: Naming case and file, whatever went wrong: not every exception can leave a worker.
        """
        case = self.cases[index.case]
        arrays: Patch = {}
        name = ""
        try:
            for name in self._fields:
                self.crumbs.drop(name, n=index.n, case=index.case)
                arrays[name] = cut_padded(case.array(name), index.start, self._source_size)
            name = "valid"
            self.crumbs.drop(name, n=index.n, case=index.case)
            inside = case.optional(name)
            if inside is None:
                arrays[name] = inside_image(case.shape, index.start, self._source_size)
            else:
                arrays[name] = cut_padded(inside, index.start, self._source_size)
        except (KeyboardInterrupt, SystemExit, SegkitError):
            raise
        except BaseException as error:  # torch passes on no others from a worker: it would die of them
            raise unreadable(case, name, error) from error
        return Sample(index.n, case.case_id, arrays, case.annotated)


def cut_padded(array: np.ndarray, start: tuple[int, ...], size: Size) -> np.ndarray:
    """`size` voxels of the last axes from `start` on, zeros where that lies outside; reads nothing else."""
    leading = array.ndim - len(size)
    result = np.zeros((*array.shape[:leading], *size), dtype=array.dtype)
    read, write = _overlap(tuple(array.shape[leading:]), start, size)
    everything: tuple[Any, ...] = (...,)
    result[everything + write] = array[everything + read]
    return result


def inside_image(shape: Size, start: tuple[int, ...], size: Size) -> np.ndarray:
    """True where a patch overlaps the image."""
    result = np.zeros(size, dtype=bool)
    result[_overlap(shape, start, size)[1]] = True
    return result


def _overlap(shape: Size, start: tuple[int, ...], size: Size) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where image and patch overlap: slices into the image, slices into the patch."""
    first = [min(max(s, 0), n) for s, n in zip(start, shape, strict=True)]
    last = [max(min(s + p, n), f) for s, p, n, f in zip(start, size, shape, first, strict=True)]
    read = tuple(slice(f, e) for f, e in zip(first, last, strict=True))
    write = tuple(slice(f - s, e - s) for f, e, s in zip(first, last, start, strict=True))
    return read, write


@dataclass(frozen=True)
class Collate:
    """Samples to a batch; picklable.

    Args:
        needs: `loss.needs`.
        num_classes: Classes, background included.
        spacing: Of the plan.
    """

    needs: frozenset[str]
    num_classes: int
    spacing: Spacing

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Stack the samples. `valid` is None where every voxel of the batch is; labels stay small integers.

        Ids are numbered anew within each sample, 1 ... n, the same for an instance and its cell; the largest n of the
        batch goes with the target.
        """

        def stacked(name: str, *, channel: bool = True) -> torch.Tensor:
            return _stacked([sample.arrays[name] for sample in samples], channel=channel)

        numbered = [name for name in ID_FIELDS if name in self.needs]
        compacted = [compact([sample.arrays[name] for name in numbered]) for sample in samples] if numbered else []
        ids = {name: _stacked([maps[k] for maps, _ in compacted]) for k, name in enumerate(numbered)}
        valid = stacked("valid")
        target = Target(
            label=stacked("label"),
            instances=ids.get("instances"),
            cells=ids.get("cells"),
            labels_present=(
                classes_present([sample.annotated for sample in samples], num_classes=self.num_classes)
                if "labels_present" in self.needs
                else None
            ),
            spacing=self.spacing,
            num_instances=max(count for _, count in compacted) if compacted else None,
        )
        return Batch(
            image=stacked("image", channel=False),
            target=target,
            valid=None if bool(valid.all()) else valid,
            case_id=tuple(sample.case_id for sample in samples),
            n=tuple(sample.n for sample in samples),
        )


def _stacked(arrays: Sequence[np.ndarray], *, channel: bool = True) -> torch.Tensor:
    tensor = torch.from_numpy(np.stack(arrays))
    return tensor.unsqueeze(1) if channel else tensor


def begin_worker(worker: int) -> None:
    """What a loader worker does first.

    It copies memory: threads of its own would only fight with the training process. It lives here and not beside
    the data module, so that a worker does not import Lightning.
    """
    del worker
    torch.set_num_threads(1)
    die_with_parent()
