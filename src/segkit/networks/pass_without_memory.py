"""One pass of a network on tensors that have shapes and no values, for what is watched from outside while it goes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def pass_without_memory(network: nn.Module, image: Tensor) -> None:
    """Run a network once, in evaluation.

    Args:
        network: Stays as it is, wherever it is: its weights are stood in for.
        image: (B, C, *S) on the device "meta".
    """
    tensors = (*network.named_parameters(), *network.named_buffers())
    state = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    with _evaluating(network), torch.no_grad():
        torch.func.functional_call(network, state, (image,))


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation for as long as the context lasts."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
