# mypy: allow-untyped-calls
# nibabel publishes types for few of its methods.
"""NIfTI-1 and NIfTI-2: `.nii`, `.nii.gz`, and pairs `.hdr` with `.img`.

The header is read and judged before any voxel; the voxels are read by its word and not a byte further, so that
neither a damaged size nor a gzip bomb fills the memory. nibabel supplies the header's fields and geometry; the
bytes are read and written here, because a mask must come back with the very header of its image.
"""

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

import nibabel as nib
import numpy as np
from jaxtyping import Float, Integer, Shaped
from nibabel.nifti1 import data_type_codes
from nibabel.spatialimages import HeaderDataError

from segkit.data.readers.header import mask_dtype, planar_affine, require_affine, require_extent, spacing_of
from segkit.data.readers.staging import staged
from segkit.errors import DataError
from segkit.types import Size, Volume

ENDINGS: Final[tuple[str, ...]] = (".nii.gz", ".nii", ".hdr")

_HEADERS: Final = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_SLACK: Final = 1 << 20
"""Bytes that may follow the voxels: some writers pad."""
_FURTHEST: Final = 1 << 28
"""Bytes between the header and the voxels: extensions of the header lie there."""
_CHUNK: Final = 1 << 24

ByteSource: TypeAlias = BufferedReader | gzip.GzipFile
Header: TypeAlias = Any
"""nibabel's header classes carry no types."""


def read(path: Path, *, role: Literal["image", "label"], where: str) -> Volume:
    """Read a NIfTI file; see `formats.read`. Scaled by slope and intercept; `dtype` is that of the file."""
    del role  # NIfTI stores both alike
    header = read_header(path, where=where)
    shape = _shape(header, where=where)
    dtype = _dtype(header, where=where)
    affine = _affine(header, where=where)
    raw = _read_voxels(path, header, shape, dtype, where=where)
    array = _scaled(raw, header, where=where)

    spatial = _spatial(shape)
    if len(spatial) == 2:
        affine = planar_affine(affine)
    channels = math.prod(shape) // math.prod(spatial)
    array = np.moveaxis(array.reshape((*spatial, channels), order="F"), -1, 0)
    return Volume(array, affine, spacing_of(affine), "mm", dtype.newbyteorder("="), path)


def write(path: Path, ids: Integer[np.ndarray, "*S"], *, like: Volume) -> None:
    """Write a mask with the header of its image: sform, qform, their codes, units and byte order to the bit."""
    source = read_header(like.path, where=f"image {like.path}")
    header = source.copy()
    dtype = mask_dtype(like.dtype, ids).newbyteorder(header.endianness)
    # The axes of length one that `read` dropped come back; the axis of channels does not.
    kept = [int(size) for size in source["dim"][1 : 1 + int(source["dim"][0])]][:3]
    shape = ids.shape if ids.ndim == 3 else (*ids.shape, *kept[2:])
    header["dim"] = np.array([len(shape), *shape] + [1] * (7 - len(shape)))
    header["datatype"], header["bitpix"] = int(cast(int, data_type_codes.code[dtype])), 8 * dtype.itemsize
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_min"], header["cal_max"] = 0, 0
    header["intent_code"] = 0

    paired = path.name.lower().endswith(".hdr")
    version = 1 if int(header["sizeof_hdr"]) == 348 else 2
    header["magic"] = (b"ni" if paired else b"n+") + str(version).encode()
    # The voxels of a single file begin after the header and four bytes that say "no extension".
    offset = 0 if paired else int(header["sizeof_hdr"]) + 4
    header["vox_offset"] = offset
    voxels = np.asarray(ids, dtype=dtype).tobytes(order="F")
    with staged(path) as temporary:
        if paired:
            temporary.with_suffix(".img").write_bytes(voxels)
            temporary.write_bytes(header.binaryblock + bytes(4))
        elif path.name.lower().endswith(".gz"):
            # No name and no time in the gzip header: the same mask gives the same bytes.
            with (
                temporary.open("wb") as file,
                gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed,
            ):
                packed.write(header.binaryblock + bytes(4) + voxels)
        else:
            temporary.write_bytes(header.binaryblock + bytes(4) + voxels)


def header_notes(path: Path) -> list[str]:
    """Sentences on what is odd in a readable header: a slope that is not a number, sform and qform that differ."""
    header = read_header(path, where=f"image {path}")
    found = []
    if not np.isfinite(header["scl_slope"]):
        found.append("scl_slope is not a number; the values are taken unscaled")
    sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    if sform is not None and qform is not None and not np.allclose(sform, qform, atol=1e-3):
        corner = np.array([*header["dim"][1:4], 1.0])
        distance = float(np.linalg.norm(((sform - qform) @ corner)[:3]))
        found.append(f"sform and qform differ by {distance:.3g} mm at the far corner; the sform is used")
    return found


def read_header(path: Path, *, where: str) -> Header:
    """The header, before anything in it is believed."""
    with _bytes_of(path, where=where) as file:
        block = _read_up_to(file, 540)
    for size, kind in _HEADERS.items():
        for endianness, order in (("<", "little"), (">", "big")):
            if int.from_bytes(block[:4], cast(Literal["little", "big"], order)) != size:
                continue
            if len(block) < size:
                raise _truncated(path, len(block), size, where=where)
            header = kind(binaryblock=block[:size], endianness=endianness, check=False)
            if bytes(header["magic"])[:2] not in (b"n+", b"ni"):
                raise DataError(
                    "an Analyze 7.5 file: it does not say how the patient lies",
                    where=where,
                    why=f"the magic is {bytes(header['magic'])!r}, not NIfTI's",
                    mend="convert it to NIfTI with a tool that knows the orientation",
                )
            return header
    raise DataError(
        "not a NIfTI file",
        where=where,
        why=f"it begins with {block[:12]!r}; a NIfTI header begins with its size, 348 or 540",
        mend="give the file the ending of what it is, or copy it again",
    )


def _shape(header: Header, *, where: str) -> Size:
    rank = int(header["dim"][0])
    if not 1 <= rank <= 7:
        raise DataError(
            "the header gives an impossible number of axes",
            where=where,
            why=f"dim[0] is {rank}; NIfTI allows 1 to 7",
            mend="write the file again from its source; the header is damaged",
        )
    shape = tuple(int(size) for size in header["dim"][1 : rank + 1])
    require_extent(shape, where=where)
    if len(_spatial(shape)) < 2:
        raise DataError(
            "the file holds no image",
            where=where,
            why=f"its size is {shape}; an image has two or three spatial axes",
            mend="name the image file, or take the case out of the data set",
        )
    extra = [size for size in shape[3:] if size > 1]
    if len(extra) > 1:
        raise DataError(
            "the file has more than one axis beside the spatial ones",
            where=where,
            why=f"its size is {shape}; segkit reads one such axis, as channels",
            mend="split the file into one a channel, named ID_0000, ID_0001, ...",
        )
    return shape


def _spatial(shape: Size) -> Size:
    """The spatial axes: the first three, without a third of a single slice."""
    return shape[:2] if len(shape) < 3 or shape[2] == 1 else shape[:3]


def _dtype(header: Header, *, where: str) -> np.dtype[Any]:
    code = int(header["datatype"])
    known = code in data_type_codes.code
    name = str(data_type_codes.label[code]) if known else "unknown"
    dtype: np.dtype[Any] = np.dtype(cast(str, data_type_codes.dtype[code]) if known else "void")
    if dtype.kind not in "iuf":
        raise DataError(
            f"voxels of type '{name}' are no grey values",
            where=where,
            why=f"the header's datatype is {code} ({name}); segkit reads integers and floating-point numbers",
            mend="write the image with one number a voxel, one file a channel",
        )
    return dtype.newbyteorder(header.endianness)


def _affine(header: Header, *, where: str) -> Float[np.ndarray, "4 4"]:
    steps = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if not np.isfinite(steps).all():
        raise DataError(
            "the spacing is not a number",
            where=where,
            why=f"pixdim[1:4] is {steps.tolist()}",
            mend="write the file again with its spacing in mm",
        )
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except (HeaderDataError, ValueError, np.linalg.LinAlgError) as error:
        raise DataError(
            "the orientation in the header cannot be understood",
            where=where,
            why=str(error),
            mend="write the file again with the scanner's geometry (sform or qform)",
        ) from error
    require_affine(affine, where=where)
    return affine


def _scaled(raw: Shaped[np.ndarray, "n"], header: Header, *, where: str) -> Shaped[np.ndarray, "n"]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope) or (slope == 1 and intercept == 0):
        return raw
    if not math.isfinite(intercept):
        raise DataError(
            "the intercept of the grey values is not a number",
            where=where,
            why=f"scl_slope is {slope}, scl_inter {intercept}",
            mend="write the file again; the header is damaged",
        )
    # float32 holds every 16-bit integer exactly; wider types need the wider float.
    wide = np.dtype("float32" if raw.dtype.kind in "iu" and raw.dtype.itemsize <= 2 else "float64")
    return np.asarray(np.add(np.multiply(raw, slope, dtype=wide), intercept, dtype=wide))


def _read_voxels(
    path: Path, header: Header, shape: Size, dtype: np.dtype[Any], *, where: str
) -> Shaped[np.ndarray, "n"]:
    paired = bytes(header["magic"])[:2] == b"ni"
    data = _image_beside(path, where=where) if paired else path
    stated = float(header["vox_offset"])
    lowest = 0 if paired else int(header["sizeof_hdr"]) + 4
    offset = lowest if not math.isfinite(stated) or stated < lowest else int(stated)
    if offset > _FURTHEST:
        raise DataError(
            "the header puts the voxels too far into the file",
            where=where,
            why=f"vox_offset is {stated:.3g}; the limit is {_FURTHEST}, and the file ends early or is a bomb",
            mend="write the file again from its source; the header is damaged",
        )
    size = math.prod(shape) * dtype.itemsize
    with _bytes_of(data, where=where) as file:
        head = _skip(file, offset)
        block = _read_up_to(file, size)
        if head < offset or len(block) < size:
            raise _truncated(data, head + len(block), offset + size, where=where)
        # Reading on also makes gzip compare its checksum, which stands at the end.
        surplus = _skip(file, _SLACK)
    if surplus == _SLACK:
        raise DataError(
            "the file holds more than its header announces",
            where=where,
            why=f"{shape} voxels of {dtype.name} are {size / 1e6:.1f} MB, and more than 1 MB follows them",
            mend="write the file again from its source; size or data type in the header are wrong",
        )
    return np.frombuffer(block, dtype=dtype).astype(dtype.newbyteorder("="), copy=False)


def _image_beside(path: Path, *, where: str) -> Path:
    for suffix in (".img", ".IMG", ".img.gz"):
        if (image := path.with_suffix(suffix)).is_file():
            return image
    raise DataError(
        "the voxels of the pair are not there",
        where=where,
        why=f"no {path.stem}.img beside the header",
        mend="copy the .img file beside the .hdr file",
    )


@contextmanager
def _bytes_of(path: Path, *, where: str) -> Iterator[ByteSource]:
    """The file's bytes, unpacked where it is gzip by its first bytes, whatever its ending says."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not packed:
            yield file
            return
        try:
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield unpacked
        except EOFError as error:
            raise _truncated(path, None, None, where=where) from error
        except (zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                "the gzip data is damaged",
                where=where,
                why=f"{error}; the file has {path.stat().st_size / 1e6:.2f} MB",
                mend="copy the file again from its source",
            ) from error


def _read_up_to(file: ByteSource, size: int) -> bytearray:
    """At most `size` bytes; memory grows with what is there, not with what the header promises."""
    block = bytearray()
    while len(block) < size:
        try:
            # read1 gives what is left before a gzip stream breaks off; read would drop it.
            chunk = file.read1(min(_CHUNK, size - len(block)))
        except EOFError:
            break  # the caller compares lengths and knows how much was promised
        if not chunk:
            break
        block += chunk
    return block


def _skip(file: ByteSource, size: int) -> int:
    """Read and drop at most `size` bytes; how many there were."""
    skipped = 0
    while skipped < size and (chunk := file.read(min(_CHUNK, size - skipped))):
        skipped += len(chunk)
    return skipped


def _truncated(path: Path, found: int | None, expected: int | None, *, where: str) -> DataError:
    kind = "gzip" if path.name.lower().endswith(".gz") else "file"
    amount = "" if found is None or expected is None else f", {found / 1e6:.2f} of {expected / 1e6:.2f} MB unpacked"
    return DataError(
        f"the {kind} ends early",
        where=where,
        why=f"truncated: {path.stat().st_size / 1e6:.2f} MB on disk{amount}",
        mend="copy the file again from its source",
    )
