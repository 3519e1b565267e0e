"""Convolutions of maps more shallow than their kernel, in float32 on processors: in half precision torch's are wrong.

With torch 2.13 the gradient of the weights of a 3D convolution in bfloat16 on a processor reads memory that nobody
wrote where the first spatial axis has fewer voxels than the kernel, but more than one (2 of 3, 3 or 4 of 5). What lies
there by chance becomes part of the gradient: mostly numbers, now and then NaN. With freed memory full of NaN nearly all
gradients of maps (B, C, 2, 2, 2) to (B, C, 2, 16, 16) were not finite; of all other depths, of short second and third
axes, of 2D, of stride 2 and of 1x1x1 kernels none. Such maps lie at the bottom of networks for flat or small patches
and are few, so float32 costs next to nothing. The result has the type that the convolution would have had.
"""

import torch
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)


class ShallowConv3d(nn.Conv3d):
    """`torch.nn.Conv3d` whose gradient is right on shallow maps too."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
        reach = self.dilation[0] * (self.kernel_size[0] - 1) + 1
        if input.device.type != "cpu" or dtype not in HALF or not 1 < input.shape[2] < reach:
            plain: Tensor = super()._conv_forward(input, weight, bias)
            return plain
        with torch.autocast("cpu", enabled=False):
            full: Tensor = super()._conv_forward(input.float(), weight.float(), None if bias is None else bias.float())
        return full.to(dtype)


def guard_shallow_convolutions(network: nn.Module) -> nn.Module:
    """Make every plain 3D convolution of a network a `ShallowConv3d`, in place; its weights and their names stay.

    Args:
        network: Changed in place, and returned.
    """
    for module in network.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = ShallowConv3d
    return network
