"""One-hot encoding of labels that may hold ignored voxels."""

import torch
from jaxtyping import Float, Integer
from torch import Tensor


def one_hot(label: Integer[Tensor, "B 1 *S"], num_classes: int) -> Float[Tensor, "B K *S"]:
    """Channel k is 1 where the label is k; an ignored voxel (-1) is zero in every channel.

    Args:
        label: (B, 1, *S) class indices; -1 is ignored.
        num_classes: K, background included.

    Returns:
        (B, K, *S) float32.
    """
    shape = (label.shape[0], num_classes, *label.shape[2:])
    encoded = torch.zeros(shape, dtype=torch.float32, device=label.device)
    return encoded.scatter_(1, label.long().clamp(min=0), (label >= 0).float())
