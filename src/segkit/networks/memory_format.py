"""Where a network's weights lie in memory: a matter of speed, never of what is computed."""

import torch
from torch import Tensor, nn

from segkit.networks.instance_norm import CHANNELS_LAST


def choose_channels_last(device: str, precision: str, dimensions: int) -> tuple[bool, str]:
    """Whether a device convolves faster with the channels last in memory, and why it is thought so.

    cpu, bfloat16: a step took 0.89, 0.89 and 0.83 of the time of channels first (U-Nets of 16.5 M and 1.4 M parameters
    in 3D, of 8.4 M in 2D; one core with AVX512-BF16, torch 2.13).
    cpu, float32: 0.96, 1.00 and 0.96 there; left alone, since processors without oneDNN have no such kernels in 3D.
    cuda: tensor cores take channels last as they are, but torch's instance normalisation copies to channels first and
    back around each of them, which costs what the convolutions gain; not measured, so left alone.

    Args:
        device: "cpu", "cuda" or "mps".
        precision: What the network computes in.
        dimensions: Spatial axes.
    """
    if device == "cpu" and precision == "bf16-mixed":
        return True, f"bfloat16 kernels of processors take {dimensions}D images channels last without rearranging them"
    if device == "cuda" and precision != "32-true":
        return False, "instance normalisation on CUDA would rearrange each feature map twice"
    return False, f"in {precision} on {device} no gain worth the name has been measured"


def to_device(network: nn.Module, device: torch.device | str, *, channels_last: bool) -> nn.Module:
    """Move a network to its device, in the memory format of the plan; its input follows the weights.

    Args:
        network: Moved in place.
        device: Where to.
        channels_last: Whether the channels of a weight come last in memory.
    """
    network.to(device)
    if channels_last:
        for parameter in network.parameters():
            if parameter.ndim in CHANNELS_LAST:
                parameter.data = _channels_last(parameter.data)
    return network


def _channels_last(weight: Tensor) -> Tensor:
    """A copy with the strides of channels last, also where one channel leaves them open.

    torch takes a weight of one input channel for channels first, whatever its strides were meant to say, and the
    convolution would answer in that format; written out, they are kept.
    """
    axes = (0, *range(2, weight.ndim), 1)
    last = torch.empty([weight.shape[axis] for axis in axes], dtype=weight.dtype, device=weight.device)
    return last.permute([axes.index(axis) for axis in range(weight.ndim)]).copy_(weight)


def lies_channels_last(network: nn.Module) -> bool:
    """Whether the channels of a network's convolutions come last in memory."""
    weights = (each for each in network.parameters() if each.ndim in CHANNELS_LAST)
    return any(
        not each.is_contiguous() and each.is_contiguous(memory_format=CHANNELS_LAST[each.ndim]) for each in weights
    )
