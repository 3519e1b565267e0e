"""Choosing a reader by the file's ending, and the faults that every file can have."""

import stat
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer

from segkit.data.readers import nifti, pictures, simpleitk, tiff
from segkit.errors import DataError
from segkit.types import Volume

Role = Literal["image", "label"]


@runtime_checkable
class Family(Protocol):
    """What each reader module offers."""

    ENDINGS: tuple[str, ...]

    def read(self, path: Path, *, role: Role, where: str) -> Volume:
        """Read one file."""
        ...

    def write(self, path: Path, ids: Integer[np.ndarray, "*S"], *, like: Volume) -> None:
        """Write one mask."""
        ...


def _by_ending(*families: Family) -> MappingProxyType[str, Family]:
    return MappingProxyType({ending: family for family in families for ending in family.ENDINGS})


_FAMILIES = _by_ending(nifti, simpleitk, pictures, tiff)
ENDINGS: tuple[str, ...] = tuple(sorted(_FAMILIES, key=len, reverse=True))
"""Every ending that can be read, the longest first, so that `.nii.gz` is found before `.gz` could be."""


def ending_of(path: Path) -> str | None:
    """The part of the name that tells the format (`.nii.gz`), lower case; None where segkit cannot read it."""
    name = path.name.lower()
    return next((ending for ending in ENDINGS if name.endswith(ending) and len(name) > len(ending)), None)


def stem_of(path: Path) -> str:
    """The name without the ending that tells the format: `a.b.nii.gz` gives `a.b`."""
    ending = ending_of(path)
    return path.name[: -len(ending)] if ending else path.stem


def mask_name(stem: str, image: Path) -> str:
    """File name of the mask of an image: the image's own ending; `.png` for JPEG, which cannot hold a mask."""
    ending = ending_of(image) or ".nii.gz"
    return stem + (".png" if ending in pictures.LOSSY else ending)


def read(path: Path, *, role: Role = "image", case: str = "") -> Volume:
    """Read one image or mask.

    Args:
        path: The file.
        role: Images are turned by their EXIF orientation, palettes become colours and transparency is dropped;
            in a label a palette index is the class and lossy formats are refused.
        case: Case it belongs to, for messages.

    Returns:
        The volume in the file's voxel order. NIfTI, NRRD and MetaImage: a trailing axis of one slice is dropped
        (such a file is 2D), and a fourth axis holds channels.

    Raises:
        DataError: Missing, unreadable, truncated, damaged or contradictory file; more than 2e9 voxels; kinds of
            data that are no image (complex numbers, lossy masks, movies).
    """
    where = ", ".join(part for part in (case and f"case {case}", f"{role} {path}") if part)
    try:
        _require_file(path, where=where)
        return _family(path, where=where).read(path, role=role, where=where)
    except PermissionError as error:
        raise DataError(
            "the file may not be read", where=where, why=str(error), mend=f"chmod u+r '{path}', or ask its owner"
        ) from error
    except MemoryError as error:
        raise DataError(
            "the image does not fit into memory",
            where=where,
            why=f"the file has {path.stat().st_size / 1e6:.1f} MB on disk and more once unpacked",
            mend="cut or resample the image, or use a machine with more memory",
        ) from error


def write(path: Path, array: Integer[np.ndarray, "*S"], *, like: Volume) -> Path:
    """Write a mask with the geometry, size, data type and file type of the image it belongs to.

    The data type is the image's own where that holds every id exactly, else the smallest that does. The file
    appears under its name whole or not at all.

    Args:
        path: Where to; its ending is replaced by that of `like` (by `.png` where `like` is a JPEG).
        array: The id of each voxel, in the voxel order of `like`, as `read` gave it.
        like: The image; geometry and header are taken from `like.path`.

    Returns:
        The path that was written.

    Raises:
        ValueError: The array has another shape than the image.
        DataError: The file type cannot hold the ids, or the image is no longer there.
    """
    if tuple(array.shape) != like.spatial_shape:
        raise ValueError(f"mask of shape {tuple(array.shape)} for an image of shape {like.spatial_shape}")
    where = f"image {like.path}"
    _require_file(like.path, where=where)
    stem = stem_of(path) if ending_of(path) else path.name  # a case id may hold a dot
    target = path.with_name(mask_name(stem, like.path))
    target.parent.mkdir(parents=True, exist_ok=True)
    _family(target, where=f"mask {target}").write(target, array, like=like)
    return target


def notes(path: Path) -> list[str]:
    """What is odd about a readable file without being wrong; sentences for `check`."""
    return nifti.header_notes(path) if ending_of(path) in nifti.ENDINGS else []


def _family(path: Path, *, where: str) -> Family:
    ending = ending_of(path)
    if ending is None:
        raise DataError(
            f"'{path.suffix or path.name}' is no file type that segkit reads",
            where=where,
            why=f"it reads {' '.join(sorted(ENDINGS))}",
            mend="convert the file, for example with SimpleITK or ImageMagick",
        )
    return _FAMILIES[ending]


def _require_file(path: Path, *, where: str) -> None:
    try:
        facts = path.stat()
        size = facts.st_size
        if path.is_dir():
            raise DataError("a folder stands where an image file should be", where=where, mend="name the file itself")
        if not stat.S_ISREG(facts.st_mode):  # reading a FIFO waits for a writer, a device never ends
            raise DataError(
                "a FIFO, socket or device stands where an image file should be",
                where=where,
                why="it is no regular file",
                mend="put the image file itself there, or take the case out of the data set",
            )
    except FileNotFoundError as error:
        broken = path.is_symlink()
        raise DataError(
            "the file is not there",
            where=where,
            why=f"it is a link to {path.readlink()}, which is gone" if broken else "no such file",
            mend="put the file back, or take the case out of the data set",
        ) from error
    except (OSError, RuntimeError) as error:
        if isinstance(error, PermissionError):
            raise
        raise DataError(
            "the file cannot be reached", where=where, why=str(error), mend="replace the link by the file itself"
        ) from error
    if size == 0:
        raise DataError("the file is empty", where=where, why="it has 0 bytes", mend="copy the file again")
