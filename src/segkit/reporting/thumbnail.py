"""A mask over one plane of its image, small: pixels and their PNG by arithmetic alone, some milliseconds a picture."""

import struct
import zlib
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from segkit.reporting.planes import Plane

COLOURS: Final = (
    "#ffb000", "#00d8ff", "#ff5c8a", "#7ee081", "#b48cff", "#ff8c42", "#4d9bff", "#e6e65a", "#4fe0c0", "#ff9ed8",
)  # fmt: skip
"""Of the classes, one after the other and again from the first: told apart on grey and on pink tissue."""
SIDE: Final = 240
"""Pixels of the longer side."""
_FILL = 0.3


def thumbnail(
    plane: Plane, limits: tuple[Float[np.ndarray, "c"], Float[np.ndarray, "c"]], *, side: int = SIDE
) -> UInt8[np.ndarray, "height width 3"]:
    """The plane with each class of its prediction tinted and outlined.

    Args:
        plane: Image and prediction as they lie on paper.
        limits: Intensities shown black and white, by channel.
        side: Pixels of the longer side; a millimetre is as long in both directions.
    """
    width, height = plane.extent
    scale = side / max(width, height)
    shape = (max(1, round(height * scale)), max(1, round(width * scale)))
    low, high = limits
    grey = np.clip(np.nan_to_num((resized(plane.image, shape) - low) / (high - low)), 0.0, 1.0)
    pixels = np.broadcast_to(255 * grey, (*shape, 3)).copy()
    if plane.prediction is not None:
        label = nearest(plane.prediction, shape)
        rim = outline(label)
        for index in np.unique(label[label > 0]):
            colour = np.array([int(colour_of(int(index))[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64)
            inside = label == index
            pixels[inside] = (1 - _FILL) * pixels[inside] + _FILL * colour
            pixels[inside & rim] = colour
    return pixels.round().astype(np.uint8)


def colour_of(index: int) -> str:
    """Colour of a class by its index, from 1."""
    return COLOURS[(index - 1) % len(COLOURS)]


def resized(image: Float[np.ndarray, "h w c"], shape: tuple[int, int]) -> Float[np.ndarray, "height width c"]:
    """Means of the pixels that become one; where one becomes several, itself."""
    for axis, size in enumerate(shape):
        edges = np.arange(size) * image.shape[axis] // size
        counts = np.maximum(np.diff(np.append(edges, image.shape[axis])), 1)
        sums = np.add.reduceat(image, edges, axis=axis, dtype=np.float64)
        image = sums / counts.reshape(-1, *(1 for _ in range(image.ndim - axis - 1)))
    return image


def nearest(label: Int[np.ndarray, "h w"], shape: tuple[int, int]) -> Int[np.ndarray, "height width"]:
    """The label at the centre of each new pixel."""
    rows, columns = (((2 * np.arange(new) + 1) * old) // (2 * new) for old, new in zip(label.shape, shape, strict=True))
    return np.asarray(label[rows[:, None], columns[None, :]])


def outline(label: Int[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels of a class with another value, or the picture's border, at a side."""
    padded = np.pad(label, 1)
    middle = padded[1:-1, 1:-1]
    sides = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.asarray((middle > 0) & np.logical_or.reduce([side != middle for side in sides]))


def png_of(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A PNG of eight bits and three channels.

    Source: W3C, Portable Network Graphics (PNG) Specification, sections 5 and 11.2.
    """
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)  # each row begins with its filter: 0, none
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
