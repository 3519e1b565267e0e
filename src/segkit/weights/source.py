"""Weights as a file has them, with what the file says of their channels, classes and axes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from torch import Tensor

Layout: TypeAlias = Literal["nnunet", "segkit", "plain"]


@dataclass(frozen=True)
class Source:
    """Named tensors from a file; nothing of them is fitted to a network yet.

    Args:
        tensors: By the file's own names, each tensor once.
        layout: Whose names and axes: nnU-Net's (self-supervised checkpoints made for it included), segkit's, or a plain
            dictionary of tensors, taken to have segkit's axes.
        told: What the file is, in a few words.
        channels: Names of the image's channels in the order of the first layer; None where the file does not say.
        classes: Names of the classes in the order of the logits; None where the file does not say, empty where the
            logits are not one a class (overlapping regions).
        axes: Axis i of segkit's images is spatial axis `axes[i]` of the file's kernels; None where they are the same.
        overrides: What makes segkit build the file's own topology, as on a command line; empty where unknown.
        run: The run folder that the weights come from, where they come from one of segkit's.
    """

    tensors: Mapping[str, Tensor]
    layout: Layout
    told: str
    channels: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    axes: tuple[int, ...] | None = None
    overrides: tuple[str, ...] = field(default=())
    run: Path | None = None
