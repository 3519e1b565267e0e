"""Pairs of masks on which segkit and other packages are held against each other: known shapes, and random blobs.

They are made in code, alike everywhere; what a package said of them elsewhere is stored with their checksums.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

CUBES, THICK, FLAT = (1.0, 1.0, 1.0), (0.7, 1.3, 3.0), (0.5, 2.0)
SIZE = (26, 22, 14)
BLOBS = 20


@dataclass(frozen=True)
class MaskPair:
    """A reference and a prediction of one shape.

    Args:
        name: What it shows.
        reference: Mask (*S).
        prediction: Likewise.
        spacing: Size of a voxel, mm by axis.
    """

    name: str
    reference: Mask
    prediction: Mask
    spacing: tuple[float, ...]

    @property
    def checksum(self) -> str:
        """Of everything but the name."""
        record = f"{self.reference.shape} {self.spacing}".encode()
        return hashlib.sha256(record + np.packbits([self.reference, self.prediction]).tobytes()).hexdigest()

    @property
    def both(self) -> bool:
        """Whether neither side is empty."""
        return bool(self.reference.any() and self.prediction.any())


def box(*edges: tuple[int, int], size: tuple[int, ...] = SIZE) -> Mask:
    """True in the voxels from start to stop along each axis."""
    mask = np.zeros(size, dtype=bool)
    mask[tuple(slice(start, stop) for start, stop in edges)] = True
    return mask


def ball(
    radius: float, centre: tuple[float, ...], spacing: tuple[float, ...] = CUBES, size: tuple[int, ...] = SIZE
) -> Mask:
    """True in the voxels whose middle lies within `radius` mm of voxel `centre`."""
    axes = np.meshgrid(*[(np.arange(n) - c) * s for n, c, s in zip(size, centre, spacing, strict=True)], indexing="ij")
    squared: NDArray[np.float64] = sum(axis**2 for axis in axes)  # type: ignore[assignment]
    return squared <= radius**2


def blobs(seed: int) -> MaskPair:
    """Some boxes; the prediction has them moved by up to a voxel along each axis, or left out, and one of its own."""
    rng = np.random.default_rng(seed)
    spacing = (CUBES, THICK)[seed % 2]
    reference, prediction = np.zeros(SIZE, dtype=bool), np.zeros(SIZE, dtype=bool)
    for index in range(int(rng.integers(2, 6))):
        start = [int(rng.integers(0, n - 3)) for n in SIZE]
        length = [int(rng.integers(2, 9)) for _ in SIZE]
        shift = [int(rng.integers(-1, 2)) for _ in SIZE]
        there = [(s, min(s + n, m)) for s, n, m in zip(start, length, SIZE, strict=True)]
        reference |= box(*there)
        if index == 0 or rng.random() < 0.8:
            moved = [(min(max(s + d, 0), m - 1), e + d) for (s, e), d, m in zip(there, shift, SIZE, strict=True)]
            prediction |= box(*[(s, max(s + 1, e)) for s, e in moved])
    corner = [int(rng.integers(0, n - 2)) for n in SIZE]
    prediction |= box(*[(c, c + 2) for c in corner])
    return MaskPair(f"blobs {seed:02d}", reference, prediction, spacing)


def shapes() -> Iterator[MaskPair]:
    """Known shapes; by hand where a test says so."""
    nothing = np.zeros(SIZE, dtype=bool)
    cube = box((8, 16), (6, 14), (3, 11))
    slab = box((4, 9), (0, 22), (0, 14))
    centre = (13.0, 11.0, 7.0)
    yield MaskPair("spheres", ball(5, centre), ball(6.5, centre), CUBES)
    yield MaskPair("spheres, thick slices", ball(6, centre, THICK), ball(8, centre, THICK), THICK)
    yield MaskPair("cube that grew by two", cube, box((8, 18), (6, 14), (3, 11)), CUBES)
    yield MaskPair("cube that moved, thick slices", cube, np.roll(cube, 2, axis=2), THICK)
    yield MaskPair("slabs 4 apart", slab, np.roll(slab, 9, axis=0), CUBES)
    yield MaskPair("slabs 4 apart, thick slices", slab, np.roll(slab, 9, axis=0), THICK)
    yield MaskPair("equal", cube, cube, THICK)
    yield MaskPair("one voxel", box((4, 5), (4, 5), (4, 5)), box((4, 5), (4, 5), (6, 7)), THICK)
    yield MaskPair("one voxel, found", box((4, 5), (4, 5), (4, 5)), box((4, 5), (4, 5), (4, 5)), CUBES)
    yield MaskPair("at the border", ball(6, (0, 0, 13)), ball(6, (1, 0, 13)), CUBES)
    yield MaskPair("everything", ~nothing, box((0, 26), (0, 22), (0, 12)), THICK)
    yield MaskPair(
        "split", box((2, 12), (4, 8), (4, 8)), box((2, 8), (4, 8), (4, 8)) | box((9, 12), (4, 8), (4, 8)), CUBES
    )
    yield MaskPair(
        "merge", box((2, 8), (4, 8), (4, 8)) | box((9, 12), (4, 8), (4, 8)), box((2, 12), (4, 8), (4, 8)), CUBES
    )
    yield MaskPair(
        "corner to corner",
        box((2, 5), (2, 5), (2, 5)) | box((5, 8), (5, 8), (5, 8)),
        box((2, 5), (2, 5), (2, 5)),
        CUBES,
    )
    yield MaskPair("half", box((2, 6), (4, 8), (4, 8)), box((2, 4), (4, 8), (4, 8)), CUBES)
    rod = box((2, 12), (4, 5), (4, 5))
    yield MaskPair("close or large", rod, box((2, 6), (4, 5), (4, 5)) | box((7, 12), (4, 9), (4, 5)), CUBES)
    squares = box((2, 5), (2, 5), size=(24, 16)) | box((5, 8), (5, 8), size=(24, 16))
    yield MaskPair("corner to corner, flat", squares, squares, FLAT)
    yield MaskPair("discs", ball(3, (8, 6), FLAT, (24, 16)), ball(4, (9, 6), FLAT, (24, 16)), FLAT)
    yield MaskPair("missed", cube, nothing, THICK)
    yield MaskPair("invented", nothing, cube, THICK)
    yield MaskPair("neither", nothing, nothing, THICK)


PAIRS: tuple[MaskPair, ...] = (*shapes(), *(blobs(seed) for seed in range(BLOBS)))
BY_NAME = {pair.name: pair for pair in PAIRS}
