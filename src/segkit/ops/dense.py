"""Whether tensors that come from a file hold a number of their own for each element they claim.

A file says of each tensor where its numbers lie, its shape and its strides. Strides of 0 let four bytes claim
terabytes: reading it costs nothing, and the first operation that makes a copy takes all the memory there is.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_LONGEST = 200
"""Characters of a name."""


def require_dense(value: object) -> None:
    """Go through mappings, lists, tuples and sets, and refuse a tensor that is not all there.

    Args:
        value: As it was read; containers may hold each other in circles.

    Raises:
        ValueError: A tensor is sparse, quantised, without storage, or larger than its storage; named by its keys.
    """
    # No recursion, nothing twice and short names: a file may nest as deep, and repeat itself as often, as it likes.
    waiting: list[tuple[str, Any]] = [("", value)]
    seen: set[int] = set()
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Tensor):
            _require_own_numbers(name, value)
        elif isinstance(value, Mapping | list | tuple | set | frozenset) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            waiting += [(_below(name, key), each) for key, each in items]


def _below(name: str, key: object) -> str:
    """The name of what lies there under a key; its end alone where it is long."""
    told = str(key) if isinstance(key, str | int) else type(key).__name__
    return f"{name}.{told}"[-_LONGEST:] if name else told[-_LONGEST:]


def _require_own_numbers(name: str, tensor: Tensor) -> None:
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not dense or tensor.nbytes > tensor.untyped_storage().nbytes():
        raise ValueError(f"{name or 'it'} {tuple(tensor.shape)} is no dense tensor with its own numbers")
