"""What losses that are no functions of soft counts compute with: logits in full precision, and the label by class."""

import torch
from jaxtyping import Float
from torch import Tensor

from segkit.losses.loss import full_precision
from segkit.ops.one_hot import one_hot
from segkit.types import LabelBatch, Logits

Voxels = tuple[Float[Tensor, "B K *S"], Float[Tensor, "B K *S"], Float[Tensor, "B 1 *S"]]
"""Logits x, one-hot label y (all 0 where it is ignored), and 1 where a voxel is annotated, else 0."""


def voxels(logits: Logits, label: LabelBatch) -> Voxels:
    """Logits and label of a batch, for arithmetic voxel by voxel; to be called where autocast is off.

    Args:
        logits: (B, K, *S).
        label: (B, 1, *S) class indices; -1 is ignored.

    Returns:
        x, y and the annotated voxels, all float32 (float64 for float64 logits).

    Raises:
        RuntimeError: A label is none of the K classes; on CUDA when the device next reports.
    """
    x = full_precision(logits)
    truth = one_hot(label, x.shape[1], dtype=x.dtype)
    known = label.ge(0).to(x.dtype)
    if x.device.type in ("cpu", "cuda"):  # the devices that have it; the host does not wait for the answer
        complete = (truth.sum(1, keepdim=True) == known).all()
        torch._assert_async(complete, f"a label is none of the {x.shape[1]} classes of the logits")
    return x, truth, known


def by_class(values: Float[Tensor, "K"], like: Float[Tensor, "B K *S"]) -> Float[Tensor, "1 K ..."]:
    """One number for each class, to be multiplied with a map of all classes."""
    return values.to(like.dtype).view(1, -1, *[1] * (like.ndim - 2))
