"""Where a network's weights lie in memory: a matter of speed, never of what is computed."""

import torch
from torch import nn


def to_device(network: nn.Module, device: torch.device | str, *, precision: str) -> nn.Module:
    """Move a network to its device, channels last where that device convolves faster so.

    On processors bfloat16 kernels want the channels together (a step of a small 3D U-Net took 0.25 s instead of
    0.34 s on two cores); their input follows the weights. Elsewhere the order is left as it is.

    Args:
        network: Moved in place.
        device: Where to.
        precision: What it will compute in.
    """
    device = torch.device(device)
    network.to(device)
    if device.type == "cpu" and precision == "bf16-mixed":
        for parameter in network.parameters():
            if parameter.ndim in _CHANNELS_LAST:
                parameter.data = parameter.data.contiguous(memory_format=_CHANNELS_LAST[parameter.ndim])
    return network


_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
