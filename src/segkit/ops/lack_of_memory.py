"""Telling a lack of memory from all other errors, whoever says so: CUDA, MPS, an allocator, a library, the system."""

import errno
from collections.abc import Iterator

import torch

_TEXTS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "status_alloc_failed",
    "cannot allocate memory",
)
"""What CUDA, MPS, the CPU's allocator, cuDNN, cuBLAS and the system say, in lower case."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error, or what it came from, is a lack of memory of the device or of the machine."""
    return any(map(says_out_of_memory, causes(error)))


def says_out_of_memory(error: BaseException) -> bool:
    """Whether this very error says so."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _TEXTS)


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__
