"""Which tensors are alive at each moment of a computation that is only pretended.

The computation runs on tensors without memory, which have shapes, types and devices but no values. Every storage that
comes up is entered when it is made and struck off when the last tensor on it is gone, as an allocator would. What a
kernel takes and gives back while it runs is not seen so; for convolutions it is added by `workspace`.
"""

import math
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from segkit.networks.processor_convolution import POINTWISE, uses_columns

CUDA_BLOCK = 512
"""torch's allocator on CUDA hands out multiples of this, bytes."""
CHANNELS_LAST: Mapping[int, torch.memory_format] = {4: torch.channels_last, 5: torch.channels_last_3d}
"""By number of axes."""
_DEVICE = torch.ops.prim.device.default
_BLOCKED_CHANNELS = 16
"""Channels of a block of oneDNN's own memory format."""


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Counts the bytes of all living storages, and the most that were alive at once.

    Args:
        block: A storage takes a multiple of so many bytes.
        threads: CPU threads of the pretended computation; oneDNN gives each buffers of its own.
    """

    def __init__(self, *, block: int = 1, threads: int = 1) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.now = self.peak = 0
        self._block, self._threads = block, threads
        self._alive: dict[int, weakref.ref[Any]] = {}

    def begin(self) -> None:
        """Forget the peak so far."""
        self.peak = self.now

    def enter(self, tensor: object) -> None:
        """Count the storage of a tensor, once, for as long as it lives."""
        if not isinstance(tensor, Tensor):
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        size = -(-storage.nbytes() // self._block) * self._block
        self._alive[key] = weakref.ref(storage, partial(self._leave, key, size))
        self.now += size
        self.peak = max(self.peak, self.now)

    def _leave(self, key: int, size: int, _: object) -> None:
        del self._alive[key]
        self.now -= size

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401  torch's operator
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run one operator, enter what it returns."""
        if func is _DEVICE:  # asked more often than all else together
            return getattr(args[0], "fake_device", None) or func(*args)
        kwargs = kwargs or {}
        given = [kwargs[each.name] for each in func._schema.arguments if each.is_out]
        if given and all(each.numel() for each in given):
            return given[0] if len(given) == 1 else tuple(given)  # nothing new, and some take long to trace
        out = _contiguous(*args) if func is POINTWISE and _lies_contiguous(*args[:2]) else func(*args, **kwargs)
        for leaf in tree_leaves(out):
            self.enter(leaf)
        if func in _CONVOLUTIONS:
            self.peak = max(self.peak, self.now + _CONVOLUTIONS[func](*args, out=out, threads=self._threads))
        return out


def _lies_contiguous(image: Tensor, weight: Tensor) -> bool:
    """By the strides, which also tell of a single channel what order was meant."""
    return image.stride(1) != 1 and weight.stride(1) != 1


def _contiguous(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: list[int],
    stride: list[int],
    dilation: list[int],
    groups: int,
    *_: object,
) -> Tensor:
    """What oneDNN's operator really returns here; torch 2.13 says that its result always has its channels last."""
    settings = (stride, padding, dilation, False, [0] * len(stride), groups)
    out: Tensor = torch.ops.aten.convolution.default(image, weight, bias, *settings)
    return out.contiguous()


def no_memory() -> AbstractContextManager[object]:
    """A context in which new tensors have no memory; it can be entered again. Tensors of two such do not mix.

    Raises:
        ImportError: This torch has no tensors without memory.
    """
    # Not part of torch's public interface, but what torch.export and torch.compile trace with. Tensors on the "meta"
    # device would do but for autocast, which goes by the device and leaves them alone.
    from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC0415  its lack must not end a training

    mode: AbstractContextManager[object] = FakeTensorMode(allow_non_fake_inputs=True)
    return mode


def forward_workspace(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None,  # noqa: ARG001
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    *,
    out: Tensor,
    threads: int,
) -> int:
    """Bytes that a convolution takes for itself while it runs, beside its inputs and its output.

    As the allocator saw it on processors with 16 channels a vector register (torch 2.13, oneDNN 3):

        own kernel       the image's patches as columns: C prod(kernel) numbers an output voxel
        oneDNN           image and output once more where they are contiguous, since it wants channels in blocks of 16;
                         the weights once more
        CUDA             the same, as an allowance: cuDNN's choice is not known before it is made
    """
    if out.device.type == "cpu" and uses_columns(
        image, weight, (stride, padding, dilation, transposed, output_padding, groups)
    ):
        return _columns(weight, out) if _kernel_voxels(weight) > 1 else 0
    if transposed and not _is_channels_last(image):
        return 2 * _nbytes(out)
    return onednn_workspace(image, weight, out=out, threads=threads)


def onednn_workspace(
    image: Tensor,
    weight: Tensor,
    *_: object,
    out: Tensor,
    threads: int,  # noqa: ARG001
) -> int:
    """The same for a convolution, not transposed, that is oneDNN's for certain."""
    if _is_channels_last(image):
        return _nbytes(weight) + (_nbytes(out) if image.shape[1] == 1 and out.dtype != torch.float32 else 0)
    blocks = _in_blocks(out)
    return max(_source(image, weight) + _nbytes(weight) + blocks - _nbytes(out), blocks)


def backward_workspace(
    gradient: Tensor,
    image: Tensor,
    weight: Tensor,
    bias_sizes: list[int] | None,  # noqa: ARG001
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    output_mask: list[bool],  # noqa: ARG001
    *,
    out: object,  # noqa: ARG001
    threads: int,
) -> int:
    """The same for a convolution's backward pass; in bfloat16 oneDNN also transposes a sample for each thread."""
    weights = _nbytes(weight)
    settings = (stride, padding, dilation, transposed, output_padding, groups)
    if gradient.device.type == "cpu" and uses_columns(image, weight, settings):
        flat = image.ndim == 4 and _kernel_voxels(weight) == 1
        return 0 if flat else _columns(weight, gradient)
    size = 2 * weights
    if not _is_channels_last(image):
        # First the image's gradient, then, beside it, that of the weights.
        size = _in_blocks(gradient) + max(_in_blocks(image) - _nbytes(image), _source(image, weight))
        if math.prod(stride) > 1 and not transposed:
            size = max(size, 2 * _nbytes(image) - weights)
    if gradient.dtype != torch.float32:
        both = (_nbytes(gradient) + _nbytes(image)) * threads // image.shape[0]
        size += max(both, _nbytes(image) if _kernel_voxels(weight) == 1 else 0)
        size += _nbytes(gradient) if image.shape[1] == 1 else 0
    return size


_CONVOLUTIONS: dict[Any, Callable[..., int]] = {
    torch.ops.aten.convolution.default: forward_workspace,
    torch.ops.aten.convolution_backward.default: backward_workspace,
}
if POINTWISE is not None:
    _CONVOLUTIONS[POINTWISE] = onednn_workspace


def _columns(weight: Tensor, output: Tensor) -> int:
    numbers = weight.shape[1] * math.prod(tuple(weight.shape[2:])) * math.prod((output.shape[0], *output.shape[2:]))
    return numbers * output.element_size()


def _in_blocks(tensor: Tensor) -> int:
    """Bytes with the channels in blocks, of which the last one is filled up."""
    channels = tensor.shape[1]
    return _nbytes(tensor) // channels * (-(-channels // _BLOCKED_CHANNELS) * _BLOCKED_CHANNELS)


def _source(image: Tensor, weight: Tensor) -> int:
    """Bytes of the image in blocks; kernels of several voxels read an image of few channels as it is."""
    as_it_is = _kernel_voxels(weight) > 1 and image.shape[1] < _BLOCKED_CHANNELS
    return 0 if as_it_is else _in_blocks(image)


def _kernel_voxels(weight: Tensor) -> int:
    return math.prod(weight.shape[2:])


def _is_channels_last(tensor: Tensor) -> bool:
    order = CHANNELS_LAST.get(tensor.ndim)
    return order is not None and tensor.is_contiguous(memory_format=order)


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
