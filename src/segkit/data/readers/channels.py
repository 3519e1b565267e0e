# mypy: allow-untyped-calls
# nibabel publishes types for few of its methods.
"""Several numbers a voxel beside an image: a NIfTI of four axes (x, y, z, number), float32, in the image's geometry."""

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Float

from segkit.data.readers import nifti
from segkit.data.readers.staging import staged
from segkit.types import Volume

ENDING = ".nii.gz"
_LEVEL = 1
"""Of gzip: probabilities are near 0 or 1 nearly everywhere, and higher levels take many times as long."""


def write_channels(path: Path, channels: Iterable[Float[np.ndarray, "*S"]], *, count: int, like: Volume) -> Path:
    """Write numbers of each voxel of an image, one channel after the other.

    The header is the image's own where that is a NIfTI, else made from its affine. The file appears under its name
    whole or not at all; one channel is in memory at a time.

    Args:
        path: Where to, ending in `.nii.gz`.
        channels: Each in the voxel order of the image, as `read` gave it.
        count: How many there are.
        like: The image.

    Raises:
        ValueError: A channel has another shape than the image.
    """
    header = _header_of(like)
    shape = (*like.spatial_shape, *(1,) * (3 - len(like.spatial_shape)))
    header["dim"] = np.array([4, *shape, count, 1, 1, 1])
    header["datatype"], header["bitpix"] = 16, 32  # float32
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_min"], header["cal_max"] = 0, 0
    header["intent_code"] = 0
    offset = int(header["sizeof_hdr"]) + 4
    header["vox_offset"], header["magic"] = offset, b"n+1" if offset == 352 else b"n+2"
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        staged(path) as temporary,
        temporary.open("wb") as file,
        # No name and no time in the gzip header: the same numbers give the same bytes.
        gzip.GzipFile("", "wb", compresslevel=_LEVEL, fileobj=file, mtime=0) as packed,
    ):
        packed.write(header.binaryblock + bytes(4))
        for channel in channels:
            if channel.shape != like.spatial_shape:
                raise ValueError(f"a channel of shape {channel.shape} for an image of shape {like.spatial_shape}")
            packed.write(np.asarray(channel, dtype=np.dtype("float32").newbyteorder(header.endianness)).tobytes("F"))
    return path


def _header_of(like: Volume) -> Any:  # noqa: ANN401  nibabel's header classes carry no types
    if like.path.name.lower().endswith(nifti.ENDINGS):
        return nifti.read_header(like.path, where=f"image {like.path}").copy()
    affine = np.eye(4)
    axes = like.affine.shape[0] - 1
    affine[:axes, :axes], affine[:axes, 3] = like.affine[:axes, :axes], like.affine[:axes, axes]
    header = nib.Nifti1Header()
    header.set_data_shape((*like.spatial_shape, *(1,) * (3 - axes)))
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_xyzt_units("mm" if like.unit == "mm" else "unknown")
    return header
