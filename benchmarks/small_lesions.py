"""One large lesion found and twenty small ones missed: what that costs by several losses, as a picture.

python -m benchmarks.small_lesions docs/images/small_lesions.png
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from segkit.losses.blob_dice import BlobDiceLoss
from segkit.losses.component_dice_ce import ComponentDiceCELoss
from segkit.losses.compound import WeightedSum
from segkit.losses.cross_entropy import CrossEntropyLoss
from segkit.losses.dice import DiceLoss
from segkit.losses.loss import Loss
from segkit.ops.instances import components_by_class, voronoi_cells
from segkit.types import Target

SMALL = 20
FOUND, MISSED, CLEAR = 0.99, 0.1, 1e-4
"""Foreground probability in a lesion that is found, in one that is missed, and in the background."""
_SIDE = 96
_CARD, _INK, _QUIET = "#fbfbfa", "#1f2328", "#6e7781"
_COLOURS = {"Dice": "#6e7781", "blob Dice": "#0b62c4", "Dice + CE": "#6e7781", "component Dice + CE": "#0b62c4"}


def losses() -> Mapping[str, Loss]:
    """By name, in the order of the legend."""
    both = {"dice": DiceLoss(), "ce": CrossEntropyLoss()}
    return {
        "Dice": DiceLoss(),
        "blob Dice": BlobDiceLoss(),
        "Dice + CE": WeightedSum(both, dict.fromkeys(both, 1.0)),
        "component Dice + CE": ComponentDiceCELoss(),
    }


def scene() -> Target:
    """A lesion of 43 x 43 pixels and twenty of 3 x 4: these are a ninth of all lesion pixels, and 20 of 21 lesions."""
    label = np.zeros((_SIDE, _SIDE), dtype=np.int64)
    label[4:47, 4:47] = 1
    places = [(x, y) for x in range(6, 92, 12) for y in range(6, 92, 11) if x > 50 or y > 50]
    for x, y in places[:: len(places) // SMALL][:SMALL]:
        label[x : x + 3, y : y + 4] = 1
    ids = components_by_class(label)
    maps = [torch.from_numpy(field)[None, None] for field in (label, ids, voronoi_cells(ids, (1.0, 1.0)))]
    return Target(*maps, num_instances=int(ids.max()))


def logits(target: Target, *, found: int) -> Tensor:
    """Of a network that found the large lesion, which has id 1, and so many of the small ones."""
    assert target.instances is not None
    p = torch.full(target.label.shape, CLEAR, dtype=torch.float64)
    p[target.instances > 0] = MISSED
    p[(target.instances > 0) & (target.instances <= 1 + found)] = FOUND
    return torch.cat([(1 - p).log(), p.log()], 1)


def draw(path: Path) -> None:
    """Draw the reference, the prediction, and the losses by the number of small lesions that were found."""
    target = scene()
    curves = {
        name: [float(loss(logits(target, found=found), target)) for found in range(SMALL + 1)]
        for name, loss in losses().items()
    }
    with mpl.rc_context({"font.size": 9, "text.color": _INK, "axes.labelcolor": _INK, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(8.6, 2.9), dpi=110, facecolor=_CARD, layout="constrained")
        pictures = figure.subplots(1, 4, width_ratios=(1, 1, 1.35, 1.35))
        shown = {"reference": target.label[0, 0], "foreground probability": logits(target, found=0).exp()[0, 1]}
        for axes, (title, picture) in zip(pictures, shown.items(), strict=False):
            axes.imshow(picture.numpy(), cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
            axes.set_title(title, fontsize=9, color=_QUIET)
            axes.set_xticks([])
            axes.set_yticks([])
        for axes, names in zip(pictures[2:], (list(curves)[:2], list(curves)[2:]), strict=True):
            axes.set_facecolor(_CARD)
            for name in names:
                axes.plot(range(SMALL + 1), curves[name], color=_COLOURS[name], label=name)
                axes.annotate(f"{curves[name][0]:.2f}", (0, curves[name][0]), (3, 3), textcoords="offset points")
            axes.set_xlabel("small lesions found, of 20")
            axes.set_ylim(0, 1)
            axes.legend(frameon=False, fontsize=8)
            axes.spines[["top", "right"]].set_visible(False)
        pictures[2].set_ylabel("loss")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
