# mypy: allow-untyped-calls
# SimpleITK publishes no types for its methods.
"""NRRD and MetaImage (`.nrrd`, `.mha`, `.mhd`) by SimpleITK, with the affine turned from LPS to RAS+."""

import re
from pathlib import Path
from typing import Final, Literal

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float, Integer

from segkit.data.readers.header import mask_dtype, planar_affine, require_affine, require_extent, spacing_of
from segkit.data.readers.staging import staged
from segkit.errors import DataError
from segkit.types import Volume

ENDINGS: Final[tuple[str, ...]] = (".nrrd", ".mha", ".mhd")

_HEADER_BYTES: Final = 1 << 16
_DATA_FILE: Final = re.compile(
    rb"^[ \t]*(?:ElementDataFile[ \t]*=|data ?file:)([^\r\n]*)", re.IGNORECASE | re.MULTILINE
)
"""Where MetaImage and NRRD name the file of their voxels. In voxels themselves such a line does not stand by chance."""
_LPS_TO_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])


def read(path: Path, *, role: Literal["image", "label"], where: str) -> Volume:
    """Read a NRRD or MetaImage file; see `formats.read`. Components and a fourth axis become channels."""
    del role  # both formats store images and labels alike
    _require_own_voxels(path, where=where)
    header = _read_header(path, where=where)
    size = tuple(int(n) for n in header.GetSize())
    if not 2 <= len(size) <= 4:
        raise DataError(
            "the file holds no image of two or three axes",
            where=where,
            why=f"its size is {size}",
            mend="split the file into one a channel or a time point",
        )
    require_extent((*size, header.GetNumberOfComponents()), where=where)
    kind = sitk.GetPixelIDValueAsString(header.GetPixelID())
    if "complex" in kind or "label" in kind:
        raise DataError(
            f"voxels of type '{kind}' are no grey values",
            where=where,
            why="segkit reads integers and floating-point numbers",
            mend="write the image with one number a voxel",
        )
    affine = _affine(header)
    require_affine(affine, where=where)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise _unreadable(error, where=where) from error

    # SimpleITK's array runs (z, y, x, component): reversed, the axes are those of the affine.
    stored = sitk.GetArrayFromImage(image)
    array = stored if header.GetNumberOfComponents() > 1 else stored[..., np.newaxis]
    array = np.moveaxis(array, -1, 0).transpose(0, *range(array.ndim - 1, 0, -1))
    spatial = size[:2] if len(size) < 3 or size[2] == 1 else size[:3]
    if len(size) == 4 and array.shape[0] > 1:
        raise DataError(
            "the file has both components and a fourth axis",
            where=where,
            why=f"size {size} with {array.shape[0]} components",
            mend="split the file into one a channel",
        )
    # What stays beside channel and spatial axes is an axis of one, or the fourth axis, which holds channels.
    array = np.moveaxis(array.reshape(array.shape[0], *spatial, -1), -1, 1).reshape(-1, *spatial)
    if len(spatial) == 2 and affine.shape == (4, 4):
        affine = planar_affine(affine)
    return Volume(array, affine, spacing_of(affine), "mm", stored.dtype, path)


def write(path: Path, ids: Integer[np.ndarray, "*S"], *, like: Volume) -> None:
    """Write a mask with origin, spacing and direction of its image, compressed."""
    header = _read_header(like.path, where=f"image {like.path}")
    dimension = min(header.GetDimension(), 3)
    dtype = mask_dtype(like.dtype, ids)
    size = tuple(header.GetSize())[:dimension]
    # An axis of one slice that `read` dropped comes back.
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.asarray(ids, dtype=dtype).reshape(size).T))
    direction = np.reshape(header.GetDirection(), (header.GetDimension(),) * 2)[:dimension, :dimension]
    image.SetOrigin(tuple(header.GetOrigin())[:dimension])
    image.SetSpacing(tuple(header.GetSpacing())[:dimension])
    image.SetDirection(direction.ravel().tolist())
    with staged(path) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)


def _read_header(path: Path, *, where: str) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(error, where=where) from error
    return reader


def _require_own_voxels(path: Path, *, where: str) -> None:
    """Refuse a header that takes its voxels from elsewhere than a plain file beside it.

    Raises:
        DataError: It names a path, a list or pattern of files, or no regular file.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    for found in _DATA_FILE.finditer(head):
        name = found[1].strip().decode("utf-8", "replace").removeprefix("./")
        if name.upper() in ("LOCAL", ""):
            continue
        if "/" in name or "\\" in name or "%" in name or name.upper().split()[0] in ("LIST", "LIST:"):
            raise DataError(
                "the header takes its voxels from elsewhere",
                where=where,
                why=f"its data file is {name[:200]!r}",
                mend="save the image as one file (.nrrd or .mha), or with its voxels in a file beside it",
            )
        if not (beside := path.parent / name).is_file():
            raise DataError(
                "the voxels of the pair are not there",
                where=where,
                why=f"no file {beside.name} beside the header",
                mend=f"copy {beside.name} beside the header",
            )


def _affine(header: sitk.ImageFileReader) -> Float[np.ndarray, "a a"]:
    """Index to mm in RAS+: x' = D diag(spacing) i + origin, the first two coordinates with their sign turned."""
    count = header.GetDimension()
    used = min(count, 3)
    direction = np.reshape(np.asarray(header.GetDirection(), dtype=np.float64), (count, count))[:used, :used]
    affine = np.eye(used + 1)
    affine[:used, :used] = direction @ np.diag(np.asarray(header.GetSpacing(), dtype=np.float64)[:used])
    affine[:used, used] = np.asarray(header.GetOrigin(), dtype=np.float64)[:used]
    turn = _LPS_TO_RAS if used == 3 else np.diag([-1.0, -1.0, 1.0])
    return turn @ affine


def _unreadable(error: RuntimeError, *, where: str) -> DataError:
    # ITK's message ends with the reader's own words; what comes before is the place in ITK's source.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    why = " ".join(lines[-2:])
    short = "data not read" in why or "expected" in why or "fread" in why or "cannot be read" in why
    return DataError(
        "the file ends early or is damaged" if short else "the file cannot be read",
        where=where,
        why=why[-300:],
        mend="copy the file again from its source (an .mhd file needs its .raw or .zraw beside it)",
    )
