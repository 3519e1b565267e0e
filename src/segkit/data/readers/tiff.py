"""TIFF by tifffile: pictures, and stacks of pages as 3D; calibrated in mm where ImageJ wrote a length.

tifffile unpacks LZW and JPEG only with a further library; SimpleITK reads those.
"""

import logging
import lzma
import math
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
import SimpleITK as sitk
import tifffile
from jaxtyping import Integer, Shaped

from segkit.data.readers.header import mask_dtype, require_extent
from segkit.data.readers.staging import staged
from segkit.errors import DataError
from segkit.types import Spacing, Volume

ENDINGS: Final[tuple[str, ...]] = (".tif", ".tiff")

_MM: Final[Mapping[str, float]] = MappingProxyType(
    {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "micron": 1e-3, "um": 1e-3, "µm": 1e-3, "\\u00b5m": 1e-3, "nm": 1e-6}
)
_IMAGEJ_TYPES: Final = ("uint8", "uint16", "float32")
_SLACK: Final = 1 << 16
_UNPACKERS: Final[Mapping[int, Callable[[], Any]]] = MappingProxyType(
    {8: zlib.decompressobj, 32946: zlib.decompressobj, 34925: lzma.LZMADecompressor}
)
_LOG = logging.getLogger(__name__)


def read(path: Path, *, role: Literal["image", "label"], where: str) -> Volume:
    """Read a TIFF as (C, rows, columns) or (C, pages, rows, columns); see `formats.read`.

    Pages become the first spatial axis; ImageJ's or OME's channels and RGB samples become channels. A transparency
    sample is dropped. A palette becomes colours in an image and stays class indices in a label.
    """
    try:
        # An OME-TIFF may name other files, by any path, as parts of itself: each image stands for itself here.
        with tifffile.TiffFile(path, _multifile=False) as file:
            if len(file.series) != 1:
                raise DataError(
                    "the TIFF holds several images of different size",
                    where=where,
                    why=f"series of shape {', '.join(str(series.shape) for series in file.series[:5])}",
                    mend="save the one that belongs to the data set by itself",
                )
            series = file.series[0]
            require_extent(series.shape, where=where)
            _require_whole(file, where=where)
            _require_unpacked_size(file, where=where)
            axes = _axes(series.axes, series.shape, where=where)
            stored = _voxels(file, path)
            page = file.pages.first
            if role == "image" and page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
                colours = np.moveaxis(page.colormap, 0, -1)  # 16 bits a colour; most palettes repeat 8 bits
                stored, axes = (colours[stored] >> 8).astype(np.uint8), axes + "C"
            elif page.extrasamples and "S" in series.axes:
                stored = np.take(stored, range(stored.shape[axes.index("C")] - len(page.extrasamples)), axes.index("C"))
            spacing = _spacing(file, spatial=len(axes.replace("C", "")))
    except (
        tifffile.TiffFileError,
        ValueError,
        LookupError,
        RuntimeError,
        EOFError,
        TypeError,
        AttributeError,
        ArithmeticError,
        struct.error,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        raise DataError(
            "the TIFF is damaged, or no TIFF",
            where=where,
            why=str(error)[:300],
            mend="copy the file again, or save it as plain TIFF",
        ) from error
    array = np.moveaxis(stored, axes.index("C"), 0) if "C" in axes else stored[np.newaxis]
    if role == "label" and array.shape[0] > 1:
        array = _single_channel(array, where=where)
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"voxels of type {array.dtype} are no grey values", where=where, mend="save the image with real numbers"
        )
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    unit: Literal["mm", "pixel"] = "pixel" if spacing is None else "mm"
    steps = spacing or (1.0,) * (array.ndim - 1)
    return Volume(array, np.diag([*steps, 1.0]), steps, unit, array.dtype, path)


def write(path: Path, ids: Integer[np.ndarray, "*S"], *, like: Volume) -> None:
    """Write a mask with resolution and calibration of its image, packed with zlib."""
    with tifffile.TiffFile(like.path) as file:
        tags = file.pages.first.tags
        imagej = dict(file.imagej_metadata or {})
        options: dict[str, Any] = {
            "resolution": tuple(tags[name].value for name in ("XResolution", "YResolution")),
            "resolutionunit": tags["ResolutionUnit"].value if "ResolutionUnit" in tags else None,
        }
        if "XResolution" not in tags or "YResolution" not in tags:
            options = {}
        bigtiff = bool(file.is_bigtiff)
    dtype = mask_dtype(like.dtype, ids, allowed=_IMAGEJ_TYPES if imagej else ())
    kept: dict[str, Any] = {key: imagej[key] for key in ("unit", "spacing") if key in imagej}
    with staged(path) as temporary:
        tifffile.imwrite(
            temporary,
            np.asarray(ids, dtype=dtype),
            photometric="minisblack",
            compression="zlib" if dtype.kind != "b" else None,
            imagej=bool(imagej),
            bigtiff=bigtiff and not imagej,
            ome=False,
            metadata={"axes": "ZYX"[-ids.ndim :], **kept} if imagej else None,
            **options,
        )


def _axes(axes: str, shape: tuple[int, ...], *, where: str) -> str:
    """Turn tifffile's letters into Z, Y, X and C: samples and channels are C, any other axis is Z."""
    if "T" in axes and shape[axes.index("T")] > 1:
        raise DataError(
            "the TIFF is a movie",
            where=where,
            why=f"axes {axes} with {shape[axes.index('T')]} time points",
            mend="save each time point as a file of its own",
        )
    letters = "".join(letter if letter in "YX" else "C" if letter in "SC" else "Z" for letter in axes)
    if sorted(letters) not in (sorted(wanted) for wanted in ("YX", "CYX", "ZYX", "CZYX")):
        raise DataError(
            "the axes of the TIFF cannot be understood",
            where=where,
            why=f"axes {axes} of shape {shape}",
            mend="save it as pages (3D) or with one axis of channels",
        )
    return letters


def _require_whole(file: tifffile.TiffFile, *, where: str) -> None:
    """Refuse a file whose strips reach beyond its end; tifffile would fill them with zeros."""
    size = file.filehandle.size
    for number, page in enumerate(file.pages):
        whole = page.aspage()
        ends = [start + count for start, count in zip(whole.dataoffsets, whole.databytecounts, strict=False)]
        if max(ends, default=0) > size:
            raise DataError(
                "the TIFF ends early",
                where=where,
                why=f"page {number + 1} reaches to byte {max(ends)}, the file ends at {size}",
                mend="copy the file again from its source",
            )


def _require_unpacked_size(file: tifffile.TiffFile, *, where: str) -> None:
    """Refuse strips that unpack to more than they hold voxels for: tifffile would unpack them whole."""
    for number, page in enumerate(file.pages):
        whole = page.aspage()
        if (start := _UNPACKERS.get(int(whole.compression))) is None or whole.dtype is None:
            continue
        most = math.prod(whole.chunks) * whole.dtype.itemsize + _SLACK
        for offset, count in zip(whole.dataoffsets, whole.databytecounts, strict=False):
            file.filehandle.seek(offset)
            if len(start().decompress(file.filehandle.read(count), most + 1)) > most:
                raise DataError(
                    "the TIFF holds more than its header announces",
                    where=where,
                    why=f"a strip of page {number + 1} has {count} bytes and unpacks to more than {most}",
                    mend="copy the file again from its source, or save it as plain TIFF",
                )


def _voxels(file: tifffile.TiffFile, path: Path) -> Shaped[np.ndarray, "..."]:
    try:
        return np.asarray(file.series[0].asarray())
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        _LOG.debug("%s: read by SimpleITK (%s)", path, error)
        shape = file.series[0].shape
        return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="TIFFImageIO"))).reshape(shape)


def _spacing(file: tifffile.TiffFile, *, spatial: int) -> Spacing | None:
    """Length of a voxel in mm where ImageJ wrote one; else None, for dots per inch say nothing of the specimen."""
    metadata = file.imagej_metadata or {}
    scale = _MM.get(str(metadata.get("unit", "")).lower())
    tags = file.pages.first.tags
    if scale is None or "XResolution" not in tags or "YResolution" not in tags:
        return None
    steps = []
    for name in ("YResolution", "XResolution"):
        pixels, units = tags[name].value
        if not pixels or not units:
            return None
        steps.append(scale * units / pixels)
    depth = [scale * float(metadata.get("spacing", 1.0))] if spatial == 3 else []
    return tuple(float(step) for step in (*depth, *steps))


def _single_channel(array: Shaped[np.ndarray, "C *S"], *, where: str) -> Shaped[np.ndarray, "1 *S"]:
    if (array == array[:1]).all():
        return array[:1]
    raise DataError(
        "the mask has several channels",
        where=where,
        why=f"{array.shape[0]} channels that differ; segkit wants one number a class",
        mend="save the masks with one channel of class numbers",
    )
