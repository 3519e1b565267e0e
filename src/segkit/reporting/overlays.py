"""Pictures of a prediction over its image, to be read by somebody who knows the anatomy.

The bare image stands above (beside, for pictures) the same view with contours, so that the structure can be judged
before the lines are. Volumes are shown in three planes on one scale, with letters for the patient's directions and a
scale bar. A contour runs where its mask is one half, which is on the faces between the voxels, in the coordinates
of the image below it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import AbstractPathEffect, withStroke
from scipy import ndimage

from segkit.reporting.planes import Plane, Unit, planes_of, round_length, window
from segkit.reporting.png import png_bytes
from segkit.runs.files import atomic_write
from segkit.types import Labels, Spacing

REFERENCE_COLOUR: Final = "#00d8ff"
PREDICTION_COLOUR: Final = "#ffb000"
"""Told apart by the colour-blind, on grey and on pink tissue; the prediction is dashed besides."""

_PAPER, _INK = "#101010", "#f0f0f0"
_HALO: list[AbstractPathEffect] = [withStroke(linewidth=2.5, foreground="black")]
_BAR_HALO: list[AbstractPathEffect] = [withStroke(linewidth=5, foreground="black")]
_WIDTH, _HEIGHT, _NARROWEST = 12.0, 9.0, 2.2
_HEAD, _FOOT, _CAPTION, _GAP = 0.45, 0.45, 0.3, 0.2
"""Inches."""
_ZOOM_FROM, _LARGEST_ZOOM = 1.5, 4.0
_MAX_NUMBERED = 12


def draw_overlay(
    image: Num[np.ndarray, "C *S"],
    reference: Int[np.ndarray, "*S"] | None,
    prediction: Int[np.ndarray, "*S"] | None,
    *,
    path: Path,
    title: str,
    spacing: Spacing,
    labels: Labels,
    unit: Unit = "mm",
    channel: int = 0,
) -> None:
    """Draw one case and write it as PNG.

    Args:
        image: In RAS+ order for volumes, (C, height, width) for pictures; any intensities. Pictures of three
            channels are shown in colour.
        reference: Class indices on the same voxels, -1 ignored; None where there is none.
        prediction: Likewise.
        path: File to write; its folder is made.
        title: Stands above: the case, and what is known of its score.
        spacing: mm (or pixels) per voxel, by axis.
        labels: Class names.
        unit: "pixel" leaves the patient's directions out and counts the scale bar in pixels.
        channel: Channel shown of an image that is not in colour.

    Raises:
        ValueError: The image has neither two nor three spatial axes, or not as many spacings.
    """
    if image.ndim not in (3, 4) or len(spacing) != image.ndim - 1:
        raise ValueError(f"an image of 2 or 3 spatial axes with its spacing is needed, got {image.shape}, {spacing}")
    planes = planes_of(image, reference, prediction, spacing=spacing, unit=unit, channel=channel)
    colour = image.ndim == 3 and image.shape[0] == 3
    limits = window(image if colour else image[channel : channel + 1])
    figure, panels = _panels(planes, stacked=image.ndim == 4)
    for plane, (bare, marked) in zip(planes, panels, strict=True):
        for axes in (bare, marked):
            _show(axes, plane, limits)
        bare.set_title(plane.caption, color=_INK, fontsize=10, pad=4)
        _contours(marked, plane)
        if labels.num_classes > 2:
            _numbers(marked, plane)
        _zoom(bare, marked, plane)
        _scale_bar(marked, unit)
    y = 1 - 0.5 * _HEAD / figure.get_figheight()
    figure.text(0.5, y, title, ha="center", va="center", color=_INK, fontsize=13)
    _legend(figure, labels, reference is not None, prediction is not None)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, png_bytes(figure))


def _panels(planes: Sequence[Plane], *, stacked: bool) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """A figure, and for each plane its bare and its marked panel, one above or one beside the other.

    All panels have one scale, so that a millimetre is as long in each.
    """
    rows, copies = (2, 1) if stacked else (1, 2)
    wide = sum(plane.extent[0] for plane in planes) * copies
    high = max(plane.extent[1] for plane in planes) * rows
    room = _HEIGHT - _HEAD - _FOOT - rows * _CAPTION
    scale = min((_WIDTH - len(planes) * copies * _GAP) / wide, room / high)
    columns = [max(plane.extent[0] * scale, _NARROWEST) + _GAP for plane in planes for _ in range(copies)]
    row = high / rows * scale + _CAPTION
    width, height = max(sum(columns), 6.5), rows * row + _HEAD + _FOOT
    figure = Figure(figsize=(width, height), dpi=110, facecolor=_PAPER)

    def panel(plane: Plane, column: int, line: int) -> Axes:
        w, h = (length * scale for length in plane.extent)
        x = (width - sum(columns)) / 2 + sum(columns[:column]) + (columns[column] - w) / 2
        y = height - _HEAD - (line + 1) * row + (row - _CAPTION - h) / 2
        axes: Axes = figure.add_axes((x / width, y / height, w / width, h / height))
        axes.set_axis_off()
        return axes

    if stacked:
        return figure, [(panel(plane, i, 0), panel(plane, i, 1)) for i, plane in enumerate(planes)]
    return figure, [(panel(planes[0], 0, 0), panel(planes[0], 1, 0))]


def _show(axes: Axes, plane: Plane, limits: tuple[Float[np.ndarray, "c"], Float[np.ndarray, "c"]]) -> None:
    """The image, and the patient's directions at its sides."""
    low, high = limits
    width, height = plane.extent
    tones = np.clip(np.nan_to_num((plane.image - low) / (high - low)), 0.0, 1.0)
    axes.imshow(
        tones if tones.shape[-1] == 3 else tones[..., 0],
        cmap="gray",
        vmin=0.0,
        vmax=1.0,
        extent=(0.0, width, height, 0.0),
        interpolation="nearest",
        aspect="auto",  # the panel already has the aspect of the millimetres
    )
    axes.set_autoscale_on(False)  # contours and bars must not widen the view
    if plane.sides is not None:
        for letter, x, y, across, up in (
            (plane.sides.left, 0.01, 0.5, "left", "center"),
            (plane.sides.right, 0.99, 0.5, "right", "center"),
            (plane.sides.top, 0.5, 0.99, "center", "top"),
            (plane.sides.bottom, 0.5, 0.01, "center", "bottom"),
        ):
            place = axes.text(x, y, letter, ha=across, va=up, transform=axes.transAxes)
            place.set(color=_INK, fontsize=12, fontweight="bold", path_effects=_HALO)


def _contours(axes: Axes, plane: Plane) -> None:
    """Outlines of every class: the reference first and broad, the prediction over it and dashed."""
    for mask, colour, width, dashes in (
        (plane.reference, REFERENCE_COLOUR, 2.2, "solid"),
        (plane.prediction, PREDICTION_COLOUR, 1.6, (0, (3, 3))),
    ):
        for index in np.unique(mask[mask > 0]) if mask is not None else ():
            xs, ys, field = outline_field(mask == index, plane.pixel)
            axes.contour(xs, ys, field, levels=[0.5], colors=[colour], linewidths=width, linestyles=[dashes])


def outline_field(
    mask: Bool[np.ndarray, "h w"], pixel: tuple[float, float]
) -> tuple[Float[np.ndarray, "a"], Float[np.ndarray, "b"], Float[np.ndarray, "b a"]]:
    """A mask as a field over the centres of its pixels, with a rim of background so that every outline closes.

    Args:
        mask: True inside.
        pixel: Height and width of a pixel.

    Returns:
        x of the columns, y of the rows and the field, all one pixel larger at each side; pixel (i, j) covers
        x from j to j + 1 and y from i to i + 1 pixels.
    """
    ys = (np.arange(-1, mask.shape[0] + 1) + 0.5) * pixel[0]
    xs = (np.arange(-1, mask.shape[1] + 1) + 0.5) * pixel[1]
    return xs, ys, np.pad(mask, 1).astype(np.float64)


def _numbers(axes: Axes, plane: Plane) -> None:
    """The index of each class inside its largest piece, as the legend names it; none where it would be a crowd."""
    label = plane.reference if plane.reference is not None else plane.prediction
    present = np.unique(label[label > 0]) if label is not None else np.zeros(0, dtype=int)
    if label is None or len(present) > _MAX_NUMBERED:
        return
    for index in present:
        # The pixel farthest from the rim, which lies inside also where a structure is bent.
        depth = ndimage.distance_transform_edt(np.pad(label == index, 1), sampling=plane.pixel)[1:-1, 1:-1]
        row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
        place = axes.text((column + 0.5) * plane.pixel[1], (row + 0.5) * plane.pixel[0], str(index))
        place.set(color="white", fontsize=9, ha="center", va="center", path_effects=_HALO, clip_on=True)


def _zoom(bare: Axes, marked: Axes, plane: Plane) -> None:
    """Show what is marked larger, in a frame of the panel's aspect, where it is small; outline it in the bare one."""
    width, height = plane.extent
    if not plane.marked.any():
        return
    rows, columns = np.nonzero(plane.marked)
    y0, y1 = rows.min() * plane.pixel[0], (rows.max() + 1) * plane.pixel[0]
    x0, x1 = columns.min() * plane.pixel[1], (columns.max() + 1) * plane.pixel[1]
    share = max(1.4 * (x1 - x0) / width, 1.4 * (y1 - y0) / height, 1 / _LARGEST_ZOOM)
    if share * _ZOOM_FROM > 1:
        return
    w, h = share * width, share * height
    x = min(max((x0 + x1 - w) / 2, 0.0), width - w)
    y = min(max((y0 + y1 - h) / 2, 0.0), height - h)
    marked.set_xlim(x, x + w)
    marked.set_ylim(y + h, y)
    frame = Rectangle((x, y), w, h, fill=False, edgecolor=_INK, linewidth=1.2, path_effects=_HALO)
    bare.add_patch(frame)
    marked.set_title(f"x {1 / share:.1f}", color=_INK, fontsize=10, pad=4)


def _scale_bar(axes: Axes, unit: Unit) -> None:
    """A bar of a round length, at most a third of the view."""
    left, right = axes.get_xlim()
    length = round_length((right - left) / 3)
    share = length / (right - left)
    bar = Line2D([0.03, 0.03 + share], [0.03, 0.03], transform=axes.transAxes, color=_INK, linewidth=3)
    bar.set_path_effects(_BAR_HALO)
    axes.add_line(bar)
    name = f"{length:g} {unit}" + ("s" if unit == "pixel" and length != 1 else "")
    place = axes.text(0.03, 0.045, name, transform=axes.transAxes)
    place.set(color=_INK, fontsize=9, va="bottom", path_effects=_HALO)


def _legend(figure: Figure, labels: Labels, reference: bool, prediction: bool) -> None:
    """Which line is which, and the numbers' names."""
    lines = []
    if reference:
        lines.append(Line2D([], [], color=REFERENCE_COLOUR, linewidth=2.2, label="reference"))
    if prediction:
        lines.append(
            Line2D([], [], color=PREDICTION_COLOUR, linewidth=1.8, linestyle=(0, (3, 1.5)), label="prediction")
        )
    if 2 < labels.num_classes <= _MAX_NUMBERED + 1:
        names = ",  ".join(f"{index} {name}" for index, name in enumerate(labels.names) if index)
        lines.append(Line2D([], [], linestyle="none", label=names))
    elif labels.num_classes == 2:
        lines.append(Line2D([], [], linestyle="none", label=labels.names[1]))
    if lines:
        style = {"frameon": False, "labelcolor": _INK, "fontsize": 10, "borderpad": 0.2}
        figure.legend(handles=lines, loc="lower center", ncols=len(lines), **style)
