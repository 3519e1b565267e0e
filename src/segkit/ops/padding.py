"""Padding to a size or to a multiple, and the way back."""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Shaped
from torch import Tensor

from segkit.types import Size


def pad_to_size(
    image: Shaped[Tensor, "B C *S"],
    size: Size,
    *,
    mode: Literal["constant", "replicate"] = "constant",
    value: float = 0.0,
) -> tuple[Shaped[Tensor, "B C *T"], tuple[slice, ...]]:
    """Pad each spatial axis to at least `size`, the image in the middle (the odd voxel behind it).

    Args:
        image: (B, C, *S).
        size: Least voxels along the spatial axes; longer axes stay as they are.
        mode: `constant` fills with `value`; `replicate` continues the edge.
        value: Fill of `constant`.

    Returns:
        The padded image (the same tensor where nothing is missing), and the slices of the spatial axes that hold the
        image: `padded[(..., *slices)]` is the way back.
    """
    here = image.shape[2:]
    missing = [max(0, want - have) for have, want in zip(here, size, strict=True)]
    before = [m // 2 for m in missing]
    slices = tuple(slice(b, b + have) for b, have in zip(before, here, strict=True))
    if not any(missing):
        return image, slices
    # torch counts from the last axis: (before, after) of the last, then of the one before it.
    amounts = [amount for b, m in zip(reversed(before), reversed(missing), strict=True) for amount in (b, m - b)]
    if mode == "replicate":
        return F.pad(image, amounts, mode="replicate"), slices
    return F.pad(image, amounts, mode="constant", value=value), slices


def pad_to_multiple(
    image: Shaped[Tensor, "B C *S"],
    divisor: Size,
    *,
    mode: Literal["constant", "replicate"] = "constant",
    value: float = 0.0,
) -> tuple[Shaped[Tensor, "B C *T"], tuple[slice, ...]]:
    """Pad each spatial axis to the next multiple of `divisor`; see `pad_to_size`."""
    size = tuple(-(-have // d) * d for have, d in zip(image.shape[2:], divisor, strict=True))
    return pad_to_size(image, size, mode=mode, value=value)


def crop(image: Shaped[Tensor, "B C *T"], slices: tuple[slice, ...]) -> Shaped[Tensor, "B C *S"]:
    """The part of the spatial axes that padding kept: the inverse of `pad_to_size` and `pad_to_multiple`."""
    return image[(slice(None), slice(None), *slices)]
