"""contact_sheet.html of a folder of masks: a small picture of each with its volumes, to see at once what is wrong."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from jaxtyping import Int, Num

from segkit.reporting.html import colour_mark, grid_of, heading, page, paragraph, section, table, tile
from segkit.reporting.planes import Unit, counts_by_slice, fullest_slice, planes_of, window
from segkit.reporting.thumbnail import colour_of, png_of, thumbnail
from segkit.types import Labels, Spacing


@dataclass(frozen=True)
class Tile:
    """One mask.

    Args:
        case_id: Case.
        mask: Name of its file.
        picture: PNG: the plane that shows most of the mask.
        plane: Which one it is.
        volumes: Of each foreground class, in `unit`.
        unit: "mL"; "mm²" for slices, "voxels" or "pixels" where the image knows no mm.
    """

    case_id: str
    mask: str
    picture: bytes
    plane: str
    volumes: Mapping[str, float]
    unit: str

    def to_json(self) -> dict[str, Any]:
        """A JSON-clean dictionary."""
        return {
            "case_id": self.case_id,
            "mask": self.mask,
            "plane": self.plane,
            "volumes": dict(self.volumes),
            "unit": self.unit,
            "picture": base64.b64encode(self.picture).decode("ascii"),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Tile":
        """The inverse of `to_json`.

        Raises:
            ValueError: It is none of ours.
        """
        try:
            return cls(
                case_id=str(stored["case_id"]),
                mask=str(stored["mask"]),
                picture=base64.b64decode(stored["picture"], validate=True),
                plane=str(stored["plane"]),
                volumes={str(name): float(volume) for name, volume in stored["volumes"].items()},
                unit=str(stored["unit"]),
            )
        except (KeyError, TypeError, AttributeError, binascii.Error) as error:
            raise ValueError(f"no tile of a contact sheet: {error!r}") from error


def draw_tile(
    image: Num[np.ndarray, "C *S"],
    prediction: Int[np.ndarray, "*S"],
    *,
    case_id: str,
    mask: str,
    spacing: Spacing,
    labels: Labels,
    unit: Unit,
) -> Tile:
    """Draw one mask over its image. One plane of a volume is copied, no more.

    Args:
        image: In RAS+ order for volumes, (C, height, width) for pictures; any intensities.
        prediction: Class indices on the same voxels.
        case_id: Case.
        mask: Name of the mask's file.
        spacing: mm (or pixels) per voxel, by axis.
        labels: Class names.
        unit: Whether the axes are the patient's.
    """
    counts = counts_by_slice(prediction if image.ndim == 4 else prediction[None], 2 if image.ndim == 4 else 0)
    total, (voxel, name) = counts.sum(axis=0), _voxel(spacing, unit)
    volumes = {k: float(total[i] * voxel) if i < len(total) else 0.0 for i, k in enumerate(labels.names) if i}
    plane_name, shown, label = "", image, prediction
    if image.ndim == 4:
        place = fullest_slice(counts)
        plane_name = f"slice {place + 1} of {len(counts)}"
        shown, label = image[..., place : place + 1], prediction[..., place : place + 1]
    channels = shown if image.ndim == 3 and image.shape[0] == 3 else shown[:1]
    plane = planes_of(channels, None, label, spacing=spacing, unit=unit)[0]
    return Tile(case_id, mask, png_of(thumbnail(plane, window(channels))), plane_name, volumes, name)


def sheet_page(name: str, tiles: Sequence[Tile], labels: Labels, *, notes: Sequence[str]) -> str:
    """The whole document.

    Args:
        name: Of the runs.
        tiles: In the order in which they are shown.
        labels: Class names.
        notes: What stands above.
    """
    colours = {name: colour_of(index) for index, name in enumerate(labels.names) if index}
    return page(
        f"segkit: {name}",
        [
            heading(f"{len(tiles)} masks by {name}"),
            paragraph("Made by segkit. Research software, not a medical device.", kind="note"),
            *(paragraph(note) for note in notes),
            section("Sizes", _classes(tiles, colours)),
            section("Masks", grid_of(_figure(one, colours) for one in tiles)),
        ],
    )


def volume_text(volume: float, unit: str) -> str:
    """`1.52 mL`, three digits or the whole number; whole numbers of pixels."""
    whole = unit in ("voxels", "pixels") or volume >= 1000
    return (f"{volume:.0f}" if whole else f"{volume:#.3g}".rstrip(".")) + f" {unit}"


def _classes(tiles: Sequence[Tile], colours: Mapping[str, str]) -> str:
    """Each class over all masks: how large it usually is, and where it is missing."""
    rows = []
    for name, colour in colours.items():
        found = [(one.volumes.get(name, 0.0), one.unit) for one in tiles]
        sizes = [volume for volume, _ in found if volume > 0]
        units = {unit for _, unit in found}
        if len(units) != 1 or not sizes:
            figures = ["", "", ""]
        else:
            (unit,) = units
            figures = [volume_text(value, unit) for value in (median(sizes), min(sizes), max(sizes))]
        rows.append((colour_mark(colour), name, *figures, f"{len(found) - len(sizes)} of {len(found)}"))
    return table(("", "class", "median", "smallest", "largest", "masks without it"), rows, numbers_from=2)


def _figure(one: Tile, colours: Mapping[str, str]) -> str:
    lines = []
    for name, colour in colours.items():
        volume = one.volumes.get(name, 0.0)
        text = f"{name} {volume_text(volume, one.unit)}" if volume else f"{name}: none"
        lines.append((colour, text, volume == 0))
    return tile(one.picture, title=one.case_id, remark=one.plane, lines=lines)


def _voxel(spacing: Spacing, unit: Unit) -> tuple[float, str]:
    """Size of a voxel, and what it is counted in."""
    if unit == "pixel":
        return 1.0, "voxels" if len(spacing) == 3 else "pixels"
    size = float(np.prod(spacing))
    return (size / 1000.0, "mL") if len(spacing) == 3 else (size, "mm²")
