"""3D convolutions on processors where torch's own are wrong, or many times slower than they need be.

**Shallow maps in half precision.** With torch 2.13 the gradient of the weights of a 3D convolution in bfloat16 on a
processor reads memory that nobody wrote where the first spatial axis has fewer voxels than the kernel, but more than
one (2 of 3, 3 or 4 of 5). What lies there by chance becomes part of the gradient: mostly numbers, now and then NaN.
With freed memory full of NaN nearly all gradients of maps (B, C, 2, 2, 2) to (B, C, 2, 16, 16) were not finite; of all
other depths, of short second and third axes, of 2D, of stride 2 and of 1x1x1 kernels none. Such maps lie at the bottom
of networks for flat or small patches and are few, so they are convolved in float32, which costs next to nothing. The
result has the type that the convolution would have had.

**Single samples in float32.** One image whose C D H are at most 20480 (32 channels of 24^3, say) torch 2.13 convolves
by a kernel of its own that first copies every patch to a column: 41 ms against the 10 ms of oneDNN, which it takes for
two such images. A validation or a prediction of small images meets that in most layers of a small network. Without a
gradient oneDNN is called here; the sums of the two differ by rounding. On two cores a U-Net of 0.3 M parameters took
0.020 s instead of 0.090 s for a tile of 32^3, one of 1.4 M 0.075 s instead of 0.121 s for 40 x 56 x 40, and one of
5.6 M the same time, as most of its maps are larger.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)
_MIN_VOXELS = 128
"""Of the output, over all axes; columns of fewer are as fast."""


class ProcessorConv3d(nn.Conv3d):
    """`torch.nn.Conv3d` whose gradient is right on shallow maps too, and which is fast on single samples."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
        reach = self.dilation[0] * (self.kernel_size[0] - 1) + 1
        out: Tensor
        if input.device.type == "cpu" and dtype in HALF and 1 < input.shape[2] < reach:
            with torch.autocast("cpu", enabled=False):
                out = super()._conv_forward(input.float(), weight.float(), None if bias is None else bias.float())
            return out.to(dtype)
        if POINTWISE is not None and dtype == torch.float32 and self._is_by_columns(input, weight):
            # As compiled code calls oneDNN; torch's public ways to it choose the kernel anew.
            out = POINTWISE(input, weight, bias, self.padding, self.stride, self.dilation, 1, "none", [], "")
        else:
            out = super()._conv_forward(input, weight, bias)
        return out

    def _is_by_columns(self, image: Tensor, weight: Tensor) -> bool:
        """Whether torch would copy the patches to columns, no gradient is asked for, and it is worth a change."""
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or not _has_onednn():
            return False
        if image.device.type != "cpu" or image.ndim != 5 or not image.dtype == weight.dtype == torch.float32:
            return False
        if (
            self.groups > 1
            or max(self.kernel_size) == 1
            or isinstance(self.padding, str)
            or self.padding_mode != "zeros"
        ):
            return False
        axes = zip(image.shape[2:], self.padding, self.dilation, self.kernel_size, self.stride, strict=True)
        voxels = math.prod(
            (size + 2 * pad - dil * (kernel - 1) - 1) // step + 1 for size, pad, dil, kernel, step in axes
        )
        settings = (self.stride, self.padding, self.dilation, False, (0, 0, 0), self.groups)
        return voxels >= _MIN_VOXELS and uses_columns(image, weight, settings)


def uses_columns(image: Tensor, weight: Tensor, settings: tuple[Any, ...]) -> bool:
    """Whether torch convolves by its own kernel rather than by oneDNN: single samples of small images, mostly.

    Args:
        image: (B, C, *S).
        weight: (O, C / groups, *K).
        settings: stride, padding, dilation, whether transposed, output padding, groups.
    """
    select = getattr(torch._C, "_select_conv_backend", None)  # private; without it oneDNN is taken for granted
    if select is None:
        return False
    return "Slow" in str(select(image, weight, None, *settings, None))


def mend_processor_convolutions(network: nn.Module) -> nn.Module:
    """Make every plain 3D convolution of a network a `ProcessorConv3d`, in place; its weights and their names stay.

    Args:
        network: Changed in place, and returned.
    """
    for module in network.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = ProcessorConv3d
    return network


def _has_onednn() -> bool:
    return bool(torch._C._has_mkldnn) and bool(torch.backends.mkldnn.enabled)


def _pointwise() -> Callable[..., Tensor] | None:
    found = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
    return None if found is None else getattr(found, "default", None)


POINTWISE = _pointwise()
"""oneDNN's convolution as an operator; None where this torch does not have it."""
