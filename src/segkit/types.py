"""The few types that cross module borders: Batch, Target, Volume, Labels, Case, PreparedCase.

Axis letters: B batch, C channels, K classes (background included), `*S` two or three spatial axes.
Tensors are torch, arrays are numpy. Spacing is mm per voxel in the order of the spatial axes, or 1 pixel
for photographs (`Volume.unit` says which).
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

Spacing: TypeAlias = tuple[float, ...]
Size: TypeAlias = tuple[int, ...]
Box: TypeAlias = tuple[tuple[int, int], ...]
"""Half-open voxel range by axis: ((start, stop), ...)."""

ImageBatch: TypeAlias = Float[Tensor, "B C *S"]
LabelBatch: TypeAlias = Int[Tensor, "B 1 *S"]
MaskBatch: TypeAlias = Bool[Tensor, "B 1 *S"]
Logits: TypeAlias = Float[Tensor, "B K *S"]
ImageArray: TypeAlias = Float[np.ndarray, "C *S"]
LabelArray: TypeAlias = Int[np.ndarray, "*S"]

ID_FIELDS = ("instances", "cells")
"""Fields of `Target` that hold instance ids."""
VOXEL_FIELDS = ("label", *ID_FIELDS, "weight")
"""Those that have voxels."""


@dataclass(frozen=True)
class Target:
    """What a loss may ask for. Optional fields are supplied only when `loss.needs` names them.

    Args:
        label: Class index of each voxel, (B, 1, *S); -1 is ignored.
        instances: Instance id of each voxel, 0 background, (B, 1, *S).
        cells: Voronoi cell of each voxel: the id of the nearest instance, (B, 1, *S).
        weight: Weight of each voxel, (B, 1, *S).
        labels_present: Which classes were annotated in the case, (B, K).
        spacing: mm per voxel of the spatial axes; always supplied in training.
        num_instances: The largest id of `instances` and `cells` in the batch, or more: known where they were numbered,
            so that no loss has to wait for the device to tell it. None where nobody counted.
    """

    label: Int[Tensor, "B 1 *S"]
    instances: Int[Tensor, "B 1 *S"] | None = None
    cells: Int[Tensor, "B 1 *S"] | None = None
    weight: Float[Tensor, "B 1 *S"] | None = None
    labels_present: Bool[Tensor, "B K"] | None = None
    spacing: Spacing | None = None
    num_instances: int | None = None

    def at_level(self, shape: Size) -> "Target":
        """The same target on a coarser grid, by nearest neighbour: the only downsampling of targets.

        `nearest-exact` takes the voxel whose centre is closest, so that a label does not move by half a
        voxel; ids are never averaged. Spacing grows with the voxel. Where every axis shrinks by a whole
        factor the fields are strided views of those here: nothing is copied.
        """
        here = tuple(self.label.shape[2:])
        if tuple(shape) == here:
            return self
        views, index = _nearest_exact(here, tuple(shape), self.label.device)

        def down(field: Tensor | None) -> Tensor | None:
            if field is None:
                return None
            field = field[(slice(None), slice(None), *views)]
            for axis, take in index.items():
                field = field.index_select(axis - len(here), take)
            return field

        spacing = self.spacing
        if spacing is not None:
            spacing = tuple(s * old / new for s, old, new in zip(spacing, here, shape, strict=True))
        label = down(self.label)
        assert label is not None
        return replace(
            self,
            label=label,
            instances=down(self.instances),
            cells=down(self.cells),
            weight=down(self.weight),
            spacing=spacing,
        )

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Target":
        """The same target with every tensor on `device`."""
        return replace(self, **_moved(self, device, non_blocking))


@dataclass(frozen=True)
class Batch:
    """What the training loop consumes.

    Args:
        image: (B, C, *S) float32.
        target: See `Target`.
        valid: True where a voxel holds image: False where a crop was padded or a masked normalisation left
            the outside out; (B, 1, *S), or None where every voxel is valid.
        case_id: Case of each sample.
        n: Running number of each sample since the run began; the sample is a pure function of (seed, n).
    """

    image: Float[Tensor, "B C *S"]
    target: Target
    valid: Bool[Tensor, "B 1 *S"] | None
    case_id: tuple[str, ...]
    n: tuple[int, ...]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """The same batch with every tensor on `device`; Lightning calls this to move it."""
        moved = _moved(self, device, non_blocking)
        return replace(self, target=self.target.to(device, non_blocking=non_blocking), **moved)

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, for asynchronous transfer; the DataLoader calls this."""
        pinned: dict[str, Any] = {
            f.name: v.pin_memory() for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)
        }
        target: dict[str, Any] = {
            f.name: v.pin_memory() for f in fields(self.target) if isinstance(v := getattr(self.target, f.name), Tensor)
        }
        return replace(self, target=replace(self.target, **target), **pinned)


@dataclass(frozen=True)
class Volume:
    """An image or a mask as it lies in its file.

    Args:
        array: (C, *S), in the file's voxel order: axis 1 of the array is the first axis of the affine
            (x of a NIfTI); for pictures (C, height, width).
        affine: Maps (index, 1) to mm in RAS+; (4, 4) for three axes, (3, 3) for two.
        spacing: Column norms of the affine, mm; 1.0 for pictures.
        unit: "mm", or "pixel" where the file knows no physical size.
        dtype: Data type stored in the file, before any scaling.
        path: Where it came from.
    """

    array: Shaped[np.ndarray, "C *S"]
    affine: Float[np.ndarray, "a a"]
    spacing: Spacing
    unit: Literal["mm", "pixel"]
    dtype: np.dtype[Any]
    path: Path

    @property
    def spatial_shape(self) -> Size:
        """Voxels along the spatial axes."""
        return tuple(self.array.shape[1:])


@dataclass(frozen=True)
class Labels:
    """What the integers in the label files mean.

    Class index k of the network is `ids[k]` in the files; index 0 is the background.

    Args:
        names: Class names, background first.
        ids: The value of each class in the files, background first.
        kind: "semantic" where a value is a class; "instances" where 1..n count objects of one class.
        ignore_id: Value of voxels that nobody annotated; becomes -1.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    kind: Literal["semantic", "instances"] = "semantic"
    ignore_id: int | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.names)

    @property
    def foreground(self) -> tuple[str, ...]:
        """Names of the classes that are not background."""
        return self.names[1:]


@dataclass(frozen=True)
class Case:
    """One subject to segment: the identity and the files, nothing read yet.

    Args:
        case_id: Unique within the data set.
        images: One file a channel, or one file with all channels.
        label: The reference, or None where there is none.
        group: Who must stay together when roles are given (the person); the case id where nothing is known.
        annotated: Names of the foreground classes that were annotated in the case; None: all of them.
    """

    case_id: str
    images: tuple[Path, ...]
    label: Path | None
    group: str
    annotated: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Geometry:
    """How a prepared array came from its file, and the way back.

    The file's axes are first permuted and flipped to the closest RAS+ order (`permutation`, `flips`), then cut
    to `crop`, then resampled to the plan's spacing. "Native" below means the file's own voxels in RAS+ order.

    Args:
        permutation: Axis i of the RAS+ array is axis `permutation[i]` of the file.
        flips: Whether axis i of the RAS+ array runs against the file's.
        native_shape: Voxels of the whole image in RAS+ order.
        native_spacing: Its spacing in mm (1.0 for pictures).
        crop: The part that was kept, in native voxels.
        unit: "mm" or "pixel".
    """

    permutation: tuple[int, ...]
    flips: tuple[bool, ...]
    native_shape: Size
    native_spacing: Spacing
    crop: Box
    unit: Literal["mm", "pixel"] = "mm"


@dataclass(frozen=True)
class PreparedCase:
    """A case on the plan's grid, ready for the network, with what is needed to score it natively.

    Args:
        case_id: Case.
        group: Group (person).
        image: (C, *S) float32, normalised, at the plan's spacing, cropped. May be memory-mapped.
        valid: (*S) bool inside of a masked normalisation, or None.
        label: (*S) class indices on the plan's grid, -1 ignored; None without a reference.
        native_label: Class indices of the whole image on its own voxels in RAS+ order; None without one.
        native_instances: Instance ids likewise, where the labels are instances.
        geometry: The way back to the file.
        content_hash: sha256 over the contents of the image files.
        annotated: The foreground classes that were annotated in the case, by index; None: all of them. Background of
            the case may hold any other class.
        instances: (*S) instance ids on the plan's grid, 0 background; None unless the case was prepared with them.
        cells: (*S) id of the nearest instance, likewise.
    """

    case_id: str
    group: str
    image: Float[np.ndarray, "C *S"]
    valid: Bool[np.ndarray, "*S"] | None
    label: Int[np.ndarray, "*S"] | None
    native_label: Int[np.ndarray, "..."] | None
    native_instances: Int[np.ndarray, "..."] | None
    geometry: Geometry
    content_hash: str
    annotated: frozenset[int] | None = None
    instances: Int[np.ndarray, "*S"] | None = None
    cells: Int[np.ndarray, "*S"] | None = None


def _nearest_exact(here: Size, there: Size, device: torch.device) -> tuple[tuple[slice, ...], dict[int, Tensor]]:
    """Voxel floor((i + 0.5) * old / new) of each axis: as a stride where the ratio is whole, else as an index.

    Returns:
        A slice for every axis, then the indices of those axes that still need one.
    """
    views: list[slice] = []
    index: dict[int, Tensor] = {}
    for axis, (old, new) in enumerate(zip(here, there, strict=True)):
        factor, rest = divmod(old, new)
        views.append(slice(None) if rest else slice(factor // 2, None, factor))
        if rest:
            centre = torch.arange(new, device=device, dtype=torch.float64) + 0.5
            index[axis] = (centre * (old / new)).long().clamp_(max=old - 1)
    return tuple(views), index


def _moved(record: "Target | Batch", device: torch.device | str, non_blocking: bool) -> dict[str, Any]:
    return {
        f.name: value.to(device, non_blocking=non_blocking)
        for f in fields(record)
        if isinstance(value := getattr(record, f.name), Tensor)
    }
