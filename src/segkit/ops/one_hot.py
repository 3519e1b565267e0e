"""One-hot encoding of labels that may hold ignored voxels."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def one_hot(
    label: Shaped[Tensor, "B 1 *S"], num_classes: int, *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "B K *S"]:
    """Channel k is 1 where the label is k; an ignored voxel (-1) is zero in every channel.

    Args:
        label: (B, 1, *S) class indices, as whole numbers of any type; -1 is ignored.
        num_classes: K, background included.
        dtype: Type of the result, which must hold the class indices exactly.

    Returns:
        (B, K, *S) of `dtype`, dense.
    """
    classes = torch.arange(num_classes, dtype=dtype, device=label.device).view(1, -1, *[1] * (label.ndim - 2))
    # Compared as floats into the result itself: neither int64 indices nor a mask of bool are ever as large as it.
    encoded = torch.empty((label.shape[0], num_classes, *label.shape[2:]), dtype=dtype, device=label.device)
    return torch.eq(label.to(dtype), classes, out=encoded)
