"""How many values a normalisation over the batch has to learn its statistics from.

In training such a layer takes mean and variance of a channel over batch and voxels, in evaluation the running means of
both. Where a plan leaves it few values (two patches whose maps are down to one voxel leave two), the two differ so much
that a network whose training loss falls predicts nothing at all.
"""

import logging

import torch
from torch import nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm

from segkit.networks.pass_without_memory import pass_without_memory
from segkit.types import Size

_logger = logging.getLogger(__name__)

FEW = 32
"""Values a channel below which a warning is due: the standard error of a mean of 32 is 18 % of the deviation."""


def fewest_values(network: nn.Module, *, in_channels: int, batch_size: int, patch_size: Size) -> tuple[str, int] | None:
    """The normalisation over the batch that has the fewest values a channel, and how many.

    Args:
        network: Stays as it is, wherever it is; it is run without memory.
        in_channels: Channels of the image.
        batch_size: Patches of a batch, on one device.
        patch_size: Voxels of a patch by axis.

    Returns:
        Name of the module and values a channel; None where there is no such layer, or the network cannot be run so.
        Layers that take statistics over all devices (SyncBatchNorm) are left out.
    """
    found: dict[str, int] = {}
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm) and module.track_running_stats:

            def count(_: nn.Module, given: tuple[torch.Tensor, ...], name: str = name) -> None:
                values = given[0].numel() // given[0].shape[1]
                found[name] = min(values, found.get(name, values))

            hooks.append(module.register_forward_pre_hook(count))
    if not hooks:
        return None
    try:
        pass_without_memory(network, torch.empty(batch_size, in_channels, *patch_size, device="meta"))
    except Exception as error:  # whatever a user's network does with a tensor that has no values
        _logger.info("the normalisations of %s are not looked at: %s", type(network).__name__, error)
        return None
    finally:
        for hook in hooks:
            hook.remove()
    return min(found.items(), key=lambda item: item[1]) if found else None


def warn_of_few_values(network: nn.Module, *, in_channels: int, batch_size: int, patch_size: Size) -> list[str]:
    """A line for the user where a normalisation over the batch has fewer values a channel than it needs, else none."""
    fewest = fewest_values(network, in_channels=in_channels, batch_size=batch_size, patch_size=patch_size)
    if fewest is None or fewest[1] >= FEW:
        return []
    name, values = fewest
    return [
        f"{name} normalises over the batch, and {batch_size} patches on a device leave it {values} values a channel: "
        "what it learns of them will not hold in prediction; take a larger plan.patch_size or plan.batch_size, or a "
        "network that normalises each sample by itself"
    ]
