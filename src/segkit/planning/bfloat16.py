"""Whether bfloat16 is worth it on this processor: measured, since the flags do not tell.

A processor with avx512_bf16 multiplies two pairs of bfloat16 in the time of one float32 product, or in twice that time:
on one of the first kind a U-Net's step took half as long in bfloat16 as in float32, on one of the second (its matrix
units hidden by the virtual machine) 1.5 times as long (U-Net of 5.6 M weights, two cores each, torch 2.13). Both have
the same flag.
"""

import time
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

_SHAPE = (2, 32, 16, 24, 16)
"""Of the features; of a single sample torch convolves float32 by other and slower kernels."""
_ROUNDS = 4


@cache
def bf16_speedup() -> float:
    """Seconds of a 3D convolution in float32, forward and backward, over those in bfloat16; above 1, that is faster.

    Each as plans would compute it: float32 channels first, bfloat16 channels last. The fastest of four passes of each,
    in turns, so that other work on the machine meets both. One thread, as cores do not change the ratio: a process that
    forks later has then not yet begun torch's threads. Takes about 0.2 s, once a process.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            image = torch.randn(_SHAPE)
            weight = torch.randn(_SHAPE[1], _SHAPE[1], 3, 3, 3)
        full = _leaves(image, weight)
        half = _leaves(*(each.bfloat16().to(memory_format=torch.channels_last_3d) for each in (image, weight)))
        times = [(_seconds(*full), _seconds(*half)) for _ in range(_ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    return min(a for a, _ in times) / min(b for _, b in times)


def _leaves(*tensors: Tensor) -> list[Tensor]:
    return [each.requires_grad_() for each in tensors]


def _seconds(image: Tensor, weight: Tensor) -> float:
    start = time.perf_counter()
    with torch.enable_grad():
        out = F.conv3d(image, weight, padding=1)
    torch.autograd.grad(out, (image, weight), torch.ones_like(out))
    return time.perf_counter() - start
