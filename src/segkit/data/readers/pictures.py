"""PNG, BMP and JPEG by Pillow: turned, palette, transparent and 16-bit pictures understood."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import SimpleITK as sitk
from jaxtyping import Integer, Shaped
from PIL import Image, ImageOps, UnidentifiedImageError

from segkit.data.readers.header import mask_dtype, require_extent
from segkit.data.readers.staging import staged
from segkit.errors import DataError
from segkit.types import Volume

LOSSY: Final = (".jpg", ".jpeg")
ENDINGS: Final[tuple[str, ...]] = (".png", ".bmp", *LOSSY)

_STORABLE: Final = {".png": ("bool", "uint8", "uint16"), ".bmp": ("bool", "uint8")}
_COLOURS_NAMED: Final = 8
_FORMATS: Final = ("PNG", "BMP", "JPEG")
"""What Pillow may take a file for, whatever its name: it would hand PostScript to an interpreter."""


def read(path: Path, *, role: Literal["image", "label"], where: str) -> Volume:
    """Read a picture as (C, height, width); see `formats.read`.

    An image is turned upright by its EXIF orientation, a label too if it has one. Palettes become colours in an
    image and stay class indices in a label. Transparency is dropped. A label saved as RGB with three equal channels
    is a grey label.
    """
    if role == "label" and path.suffix.lower() in LOSSY:
        raise _lossy(where)
    with _opened(path, role=role, where=where) as picture:
        pixels = _pixels(picture, path, role=role)
    if role == "label" and pixels.ndim == 3:
        pixels = _single_channel(pixels, where=where)
    array = pixels[np.newaxis] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    array = np.ascontiguousarray(array)
    return Volume(array, np.eye(3), (1.0, 1.0), "pixel", array.dtype, path)


def write(path: Path, ids: Integer[np.ndarray, "*S"], *, like: Volume) -> None:
    """Write a mask as one grey channel, upright as `read` gave the image, without EXIF orientation."""
    try:
        dtype = mask_dtype(like.dtype, ids, allowed=_STORABLE[path.suffix.lower()])
    except DataError as error:
        raise DataError(error.what, where=f"mask {path}", why=error.why, mend=error.mend) from error
    with staged(path) as temporary:
        Image.fromarray(np.ascontiguousarray(ids, dtype=dtype)).save(temporary)


def _lossy(where: str) -> DataError:
    return DataError(
        "a JPEG cannot hold a mask",
        where=where,
        why="its compression changes values at every edge, so that class numbers are lost",
        mend="export the masks again as PNG or TIFF; a JPEG cannot be repaired",
    )


@contextmanager
def _opened(path: Path, *, role: Literal["image", "label"], where: str) -> Iterator[Image.Image]:
    """The picture with its size judged; Pillow's many complaints become one `DataError`."""
    limit = Image.MAX_IMAGE_PIXELS
    # Pillow's own limit (89 million) is too low for a slide scan; ours is asked from the header just below.
    Image.MAX_IMAGE_PIXELS = None
    try:
        if path.suffix.lower() == ".png":
            with Image.open(path, formats=_FORMATS) as picture:
                picture.verify()  # checksums of every chunk; reading alone passes over a flipped byte
        with Image.open(path, formats=_FORMATS) as picture:
            bands = len(picture.getbands())
            extent = (picture.height, picture.width)
            require_extent(extent if bands == 1 else (*extent, bands), where=where)
            if role == "label" and picture.format in ("JPEG", "MPO"):
                raise _lossy(where)
            if getattr(picture, "n_frames", 1) > 1:
                raise DataError(
                    "the picture is a movie",
                    where=where,
                    why=f"it has {getattr(picture, 'n_frames', 1)} frames",
                    mend="save each frame as a picture of its own, or the stack as TIFF",
                )
            yield picture
    except UnidentifiedImageError as error:
        with path.open("rb") as file:
            begin = file.read(12)
        known = begin.startswith((b"\x89PNG\r\n", b"BM", b"\xff\xd8\xff"))
        raise DataError(
            "the header of the picture is damaged" if known else f"not a {path.suffix[1:].upper()} picture",
            where=where,
            why=f"it begins with {begin!r}",
            mend="copy the file again from its source"
            if known
            else "give the file the ending of what it is, or copy it again",
        ) from error
    except PermissionError:
        raise
    except (OSError, SyntaxError, ValueError, struct.error, EOFError, IndexError) as error:
        # Pillow raises OSError for truncated pictures and SyntaxError for broken chunks.
        raise DataError(
            "the picture ends early or is damaged",
            where=where,
            why=f"{error}; the file has {path.stat().st_size / 1e3:.1f} kB",
            mend="copy the file again from its source",
        ) from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _pixels(picture: Image.Image, path: Path, *, role: Literal["image", "label"]) -> Shaped[np.ndarray, "..."]:
    if _is_deep_colour_png(path):
        # Pillow cuts 16-bit colour down to 8 without a word; SimpleITK reads it whole.
        deep = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="PNGImageIO"))
        return _upright(deep[..., :3] if deep.shape[-1] > 2 else deep[..., 0], picture)
    upright: Image.Image = ImageOps.exif_transpose(picture)
    if upright.mode == "P" and role == "image":
        upright = upright.convert("RGB")
    elif upright.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        upright = upright.convert("L" if upright.mode in ("LA", "La") else "RGB")
    elif upright.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        upright = upright.convert("RGB")
    pixels = np.asarray(upright)
    if pixels.dtype == np.int32:  # mode "I": how Pillow keeps some 16-bit pictures
        return pixels.astype(np.uint16)
    return pixels.astype(pixels.dtype.newbyteorder("="))


def _is_deep_colour_png(path: Path) -> bool:
    """16 bits a channel with colour or transparency: bit depth and colour type stand at bytes 24 and 25."""
    with path.open("rb") as file:
        head = file.read(26)
    return head[:8] == b"\x89PNG\r\n\x1a\n" and head[24] == 16 and head[25] in (2, 4, 6)


def _upright(pixels: Shaped[np.ndarray, "..."], picture: Image.Image) -> Shaped[np.ndarray, "..."]:
    """Turn an array as EXIF says: orientations 5 to 8 swap the axes, then rows or columns run the other way."""
    orientation = int(picture.getexif().get(0x0112, 1))
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _single_channel(pixels: Shaped[np.ndarray, "h w c"], *, where: str) -> Shaped[np.ndarray, "h w"]:
    first: Shaped[np.ndarray, "h w"] = pixels[..., 0]
    if (pixels == first[..., np.newaxis]).all():
        return first
    colours: list[Any] = np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0).tolist()
    shown = ", ".join(str(tuple(colour)) for colour in colours[:_COLOURS_NAMED])
    more = f" and {len(colours) - _COLOURS_NAMED} more" if len(colours) > _COLOURS_NAMED else ""
    raise DataError(
        "the mask is coded by colour",
        where=where,
        why=f"it has the colours {shown}{more}; segkit wants one number a class",
        mend="save the masks as grey PNG with values "
        + ", ".join(str(k) for k in range(min(len(colours), 4)))
        + ", ...",
    )
