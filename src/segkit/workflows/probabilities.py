"""The probability of each class at each voxel, gathered plane by plane and written class by class."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from segkit.data.geometry import to_file_order
from segkit.data.readers import write_channels
from segkit.inference.spill import Spilled
from segkit.types import Case, Geometry, Volume

FOLDER = "probabilities"


def probability_path(output: Path, case: Case) -> Path:
    """Where the probabilities of a case lie, beside its mask."""
    return output / FOLDER / f"{case.case_id}.nii.gz"


class Probabilities:
    """Takes what `native_labels` keeps and writes it in the geometry of the image.

    Planes come one after the other with all classes, a file holds one class after the other with all planes: in between
    they lie in a file without a name.

    Args:
        num_classes: K, background first.
        geometry: The way back; outside the crop the background is certain.
        scratch: Folder of the file in between.

    Raises:
        OSError: There is no room for it.
    """

    def __init__(self, num_classes: int, geometry: Geometry, *, scratch: Path) -> None:
        first, *rest = (stop - start for start, stop in geometry.crop)
        self._geometry, self._classes = geometry, num_classes
        self._planes = Spilled((first, num_classes, *rest), scratch)

    def keep(self, begin: int, values: Float[Tensor, "K N *R"]) -> None:
        """Take the planes from `begin` on."""
        self._planes.tensor[begin : begin + values.shape[1]].copy_(values.movedim(0, 1))
        self._planes.let_go()

    def write(self, path: Path, *, like: Volume) -> Path:
        """Write them as a NIfTI of four axes, the classes along the last; whole or not at all."""
        return write_channels(path, self._channels(), count=self._classes, like=like)

    def _channels(self) -> Iterator[Float[np.ndarray, "..."]]:
        inside = tuple(slice(start, stop) for start, stop in self._geometry.crop)
        for index in range(self._classes):
            whole = np.full(self._geometry.native_shape, float(index == 0), dtype=np.float32)
            torch.from_numpy(whole[inside]).copy_(self._planes.tensor[:, index])
            self._planes.let_go()
            yield to_file_order(whole, self._geometry)
