"""Instance normalisation that stays in the memory format it is given, on processors.

    y = (x - mean) / sqrt(variance + eps) * weight + bias

with mean and (biased) variance of each sample and channel over the voxels. Statistics are kept in float32 where the
features are bfloat16.

torch writes instance normalisation as batch normalisation of one sample with B * C channels. With the channels last in
memory that view does not exist: the features are copied to channels first, normalised, and copied back by the next
convolution, and so are the gradients, a quarter of a training step's time. Here each sample is one batch of its own,
whose kernels know both formats; with the channels first, group normalisation with a group a channel computes the same
in two thirds of the time. Other devices, and compiled networks, keep torch's own.

Reference:
    Ulyanov et al., Instance Normalization: The Missing Ingredient for Fast Stylization (2016).
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class _PerSample(torch.autograd.Function):
    """Batch normalisation of each sample by itself, channels last in and out."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:  # noqa: ANN401
        out = torch.empty_like(features)
        # Statistics in float32 for features of half precision, as the kernels return them.
        precise = torch.promote_types(features.dtype, torch.float32)
        mean, scale = (features.new_empty(features.shape[:2], dtype=precise) for _ in range(2))
        for sample in range(len(features)):
            one = slice(sample, sample + 1)
            torch.native_batch_norm(
                features[one],
                weight,
                bias,
                None,
                None,
                True,
                0.0,
                eps,
                out=(out[one], mean[sample], scale[sample]),
            )
        ctx.save_for_backward(features, weight, mean, scale)
        ctx.eps = eps
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # noqa: ANN401
        features, weight, mean, scale = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=CHANNELS_LAST[features.ndim])
        to_features = torch.empty_like(features)
        to_weight, to_bias = torch.zeros_like(weight), torch.zeros_like(weight)
        for sample in range(len(features)):
            one = slice(sample, sample + 1)
            part, weight_part, bias_part = torch.ops.aten.native_batch_norm_backward(
                gradient[one],
                features[one],
                weight,
                None,
                None,
                mean[sample],
                scale[sample],
                True,
                ctx.eps,
                [True, True, True],
            )
            to_features[one] = part
            to_weight += weight_part
            to_bias += bias_part
        return to_features, to_weight, to_bias, None


def _forward(norm: nn.InstanceNorm2d | nn.InstanceNorm3d, features: Tensor) -> Tensor | None:
    """The normalised features where there is a faster way to them than torch's, else None."""
    if features.device.type != "cpu" or torch.compiler.is_compiling() or math.prod(features.shape[2:]) < 2:
        return None
    if features.is_contiguous() or not features.is_contiguous(memory_format=CHANNELS_LAST[features.ndim]):
        return F.group_norm(features, norm.num_features, norm.weight, norm.bias, norm.eps)
    out: Tensor = _PerSample.apply(features, norm.weight, norm.bias, norm.eps)  # type: ignore[no-untyped-call]
    return out


class InstanceNorm2d(nn.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d` with learnt scale and shift and without running statistics."""

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__(channels, eps=eps, affine=True)

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Normalised over the voxels; the memory format stays."""
        out = _forward(self, input)
        return super().forward(input) if out is None else out


class InstanceNorm3d(nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d` with learnt scale and shift and without running statistics."""

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__(channels, eps=eps, affine=True)

    def forward(self, input: Float[Tensor, "B C D H W"]) -> Float[Tensor, "B C D H W"]:
        """Normalised over the voxels; the memory format stays."""
        out = _forward(self, input)
        return super().forward(input) if out is None else out
