"""The two ends of a network: which convolutions read the image, and which write the logits.

Found by running it, not by names, so that it holds for any network of the contract: a layer that is given the image's
own channels reads the image; a layer whose output is returned writes logits.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)


class Ends(NamedTuple):
    """Names of modules, as in `network.named_modules()`.

    Args:
        image: Convolutions that read the image.
        logits: Convolutions that write logits: one, or one a level of deep supervision.
    """

    image: tuple[str, ...]
    logits: tuple[str, ...]


@torch.no_grad()
def find_ends(network: nn.Module, *, in_channels: int, size: Sequence[int]) -> Ends:
    """Run a network once, in training, on an image that is constant by channel, and see who reads and who writes.

    Channel c of the image is c + 1 everywhere. A convolution of as many channels whose input peaks at exactly these
    numbers reads the image, padded or not. A convolution whose output shares its memory with what the network returns,
    cropped or not, writes logits; a network that computes on from its last convolution has none to be found.

    Args:
        network: Left as it was: parameters, buffers, modes, and the state of the random numbers.
        in_channels: Channels of the image.
        size: Voxels of the image to try.
    """
    like = next(network.parameters())
    peaks = torch.arange(1, in_channels + 1, device=like.device, dtype=like.dtype)
    image = peaks.reshape(1, -1, *(1,) * len(size)).expand(1, in_channels, *size).contiguous()
    names: dict[nn.Module, str] = {
        module: name for name, module in network.named_modules() if isinstance(module, _CONVOLUTIONS)
    }
    readers: dict[str, None] = {}
    written: list[tuple[str, Tensor]] = []

    def watch(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        features = given[0]
        if features.shape[1] == in_channels and torch.equal(features.amax(dim=(0, *range(2, features.ndim))), peaks):
            readers[names[module]] = None
        written.append((names[module], output))  # the tensor itself: memory that is let go may be another's next

    hooks = [module.register_forward_hook(watch) for module in names]
    try:
        with _left_as_it_was(network):
            network.train()
            outputs = network(image)
    finally:
        for hook in hooks:
            hook.remove()
    levels = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    memory = {level.untyped_storage().data_ptr() for level in levels}
    writers = dict.fromkeys(name for name, output in written if output.untyped_storage().data_ptr() in memory)
    return Ends(tuple(readers), tuple(writers))


@contextmanager
def _left_as_it_was(network: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in network.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    cuda = sorted({p.device.index or 0 for p in network.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=cuda):
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
            for buffer, before in buffers:
                buffer.copy_(before)
