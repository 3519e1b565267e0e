"""What every intensity transform is: a draw for each channel, and an application that leaves the outside alone."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from segkit.types import Size

P = TypeVar("P")
ChannelDraws: TypeAlias = tuple[Any | None, ...]
"""One entry a channel: the parameters drawn for it, None where the channel stays as it is."""


@runtime_checkable
class IntensityTransform(Protocol):
    """Changes values, never places.

    The contract, held by tests/contracts/test_every_transform.py: safe on z-scored data (negative values survive,
    nothing is clipped to zero), finite on a constant image, statistics taken inside `valid`, voxels outside `valid`
    unchanged to the bit, inputs never edited in place.
    """

    def draw(self, rng: np.random.Generator, *, channels: int, patch_size: Size) -> ChannelDraws | None:
        """Draw the parameters of one sample.

        Args:
            rng: The sample's own generator.
            channels: Number of channels.
            patch_size: Voxels along the spatial axes.

        Returns:
            One entry a channel, or None where no channel is changed.
        """
        ...

    def apply(
        self, images: Float[Tensor, "N 1 *S"], valid: Bool[Tensor, "N 1 *S"] | None, drawn: Sequence[Any]
    ) -> Float[Tensor, "N 1 *S"]:
        """Apply what was drawn.

        Args:
            images: The channels that were drawn, each an image of its own, on any device.
            valid: Where they hold image, or None for everywhere.
            drawn: The parameters of each of the N.

        Returns:
            New images; `images` where `valid` is False.
        """
        ...


def keep_outside(
    changed: Float[Tensor, "B C *S"], images: Float[Tensor, "B C *S"], valid: Bool[Tensor, "B 1 *S"] | None
) -> Float[Tensor, "B C *S"]:
    """`changed` inside `valid`, `images` to the bit outside."""
    return changed if valid is None else torch.where(valid, changed, images)


def column(values: Sequence[float], like: Tensor) -> Float[Tensor, "N 1"]:
    """One number an image, on the images' device, without waiting for it."""
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)[:, None]


def apply_one_by_one(
    change: Callable[[Float[Tensor, "1 1 *S"], Bool[Tensor, "1 1 *S"] | None, P], Float[Tensor, "1 1 *S"]],
    images: Float[Tensor, "N 1 *S"],
    valid: Bool[Tensor, "N 1 *S"] | None,
    drawn: Sequence[P],
) -> Float[Tensor, "N 1 *S"]:
    """Change each image with its own parameters, for operations whose shape depends on them."""
    changed = [
        change(images[k : k + 1], None if valid is None else valid[k : k + 1], one) for k, one in enumerate(drawn)
    ]
    return changed[0] if len(changed) == 1 else torch.cat(changed)


def expand(factor: Float[Tensor, "B C"], images: Float[Tensor, "B C *S"]) -> Float[Tensor, "B C *one"]:
    """One number a channel, shaped so that it broadcasts over the voxels."""
    return factor.reshape(*factor.shape, *([1] * (images.ndim - 2)))
