"""A network in numbers: parameters, operations, activations and receptive field, told without running it.

    operations        floating-point operations of convolutions and matrix products in a pass over one patch; a multiply
                      and the add that follows it are two
    activations       numbers that these put out in that pass: what its memory and, on a GPU, its time follow
    receptive field   voxels by axis that the logits of the voxel in the middle of a patch depend on

Operations and activations are counted on tensors without memory. The receptive field is found as the part of a patch
where the gradient of the middle voxel is not zero, axis by axis, in a copy of the network with one channel and positive
weights, so that nothing cancels. What normalisations, squeeze-and-excitation and the like read, the mean of a whole
feature map, is left out: with it every voxel would depend on all.

Reference:
    Radosavovic et al., Designing Network Design Spaces (2020), for activations as a measure; Araujo et al., Computing
    Receptive Fields of Convolutional Neural Networks (2019).
"""

import copy
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from segkit.networks.encoder_decoder import AnySize
from segkit.networks.pass_without_memory import pass_without_memory
from segkit.networks.squeeze_excitation import SqueezeExcitation
from segkit.types import Size

_logger = logging.getLogger(__name__)
_PRODUCTS = frozenset(
    {
        torch.ops.aten.convolution.default,
        torch.ops.aten.mm.default,
        torch.ops.aten.addmm.default,
        torch.ops.aten.bmm.default,
        torch.ops.aten.baddbmm.default,
    }
)
_CONVOLUTIONS = frozenset({torch.conv2d, torch.conv3d})
_TRANSPOSED = frozenset({torch.conv_transpose2d, torch.conv_transpose3d})
_POOLED_TO_ONE = frozenset({F.adaptive_avg_pool2d, F.adaptive_avg_pool3d})
_AVERAGE: Mapping[type[nn.Module], Any] = {nn.MaxPool2d: nn.AvgPool2d, nn.MaxPool3d: nn.AvgPool3d}
_LEFT_OUT = (_NormBase, nn.GroupNorm, nn.LayerNorm, SqueezeExcitation)


@dataclass(frozen=True)
class Description:
    """What is told about a network.

    Args:
        parameters: Learnt numbers.
        operations: Of a pass over one patch; None where the network cannot be traced.
        activations: Of a pass over one patch; None where the network cannot be traced.
        receptive_field: Voxels by axis, at most those of the patch; None where it cannot be found.
        patch_size: The patch, voxels by axis.
    """

    parameters: int
    operations: int | None
    activations: int | None
    receptive_field: Size | None
    patch_size: Size

    def text(self) -> str:
        """For people, in a line."""
        parts = [f"{self.parameters / 1e6:.2f} M parameters"]
        if self.operations is not None and self.activations is not None:
            parts.append(f"{_short(self.operations)} operations and {_short(self.activations)} activations a patch")
        if self.receptive_field is not None:
            if self.receptive_field == self.patch_size:
                parts.append("sees the whole patch")
            else:
                sizes = zip(self.receptive_field, self.patch_size, strict=True)
                field = " x ".join("all" if field == size else str(field) for field, size in sizes)
                parts.append(f"receptive field {field}")
        return "; ".join(parts)


def describe(network: nn.Module, *, in_channels: int, patch_size: Size) -> Description:
    """Parameters, operations, activations and receptive field.

    Args:
        network: Stays as it is, wherever it is, also where it has no memory.
        in_channels: Channels of the image.
        patch_size: Voxels of the patch that is passed.
    """
    network = getattr(network, "_orig_mod", network)  # of a compiled network, the one that was compiled
    counted = field = None
    try:
        counted = count_pass(network, torch.empty(1, in_channels, *patch_size, device="meta"))
    except Exception as error:  # whatever a user's network does with a tensor that has no values
        _logger.info("operations of %s are not counted: %s", type(network).__name__, error)
    try:
        field = receptive_field(network, in_channels=in_channels, patch_size=patch_size)
    except Exception as error:  # ... or with a single channel
        _logger.info("the receptive field of %s is not found: %s", type(network).__name__, error)
    return Description(
        parameters=sum(each.numel() for each in network.parameters() if each.requires_grad),
        operations=counted[0] if counted else None,
        activations=counted[1] if counted else None,
        receptive_field=field,
        patch_size=tuple(patch_size),
    )


def count_pass(network: nn.Module, image: Tensor) -> tuple[int, int]:
    """Operations and activations of one pass in evaluation.

    Args:
        network: Stays as it is.
        image: (B, C, *S) on the device "meta".
    """
    with FlopCounterMode(display=False) as flops, _Outputs() as outputs:
        pass_without_memory(network, image)
    return flops.get_total_flops(), outputs.numbers


class _Outputs(TorchDispatchMode):
    """Counts the numbers that convolutions and matrix products put out."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.numbers = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401  torch's operator
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        out = func(*args, **(kwargs or {}))
        if func in _PRODUCTS:
            self.numbers += sum(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
        return out


def receptive_field(network: nn.Module, *, in_channels: int, patch_size: Size) -> Size:
    """Voxels by axis that the logits of the middle voxel depend on; the patch's own size where it reaches its border.

    Args:
        network: Stays as it is.
        in_channels: Channels of the image.
        patch_size: Voxels within which it is looked for.
    """
    bare = _bare(network)
    # What takes any size is given a line along one axis; a network without that promise the whole patch.
    across = (1,) * len(patch_size) if isinstance(network, AnySize) else patch_size
    extents = []
    for axis, size in enumerate(patch_size):
        line = [size if other == axis else across[other] for other in range(len(patch_size))]
        image = torch.ones(1, in_channels, *line, dtype=torch.float64, requires_grad=True)
        with _OneChannel(axis):
            middle = bare(image).select(2 + axis, size // 2).sum()
        (gradient,) = torch.autograd.grad(middle, image)
        touched = gradient.movedim(2 + axis, 0).flatten(1).abs().sum(1).nonzero().flatten()
        first, last = int(touched[0]), int(touched[-1])
        extents.append(size if first == 0 or last == size - 1 else last - first + 1)
    return tuple(extents)


def _bare(network: nn.Module) -> nn.Module:
    """A copy in evaluation without normalisations, biases and memory for its weights; maxima become means."""
    memo: dict[int, Any] = {
        id(tensor): nn.Parameter(torch.empty_like(tensor, device="meta"), requires_grad=False)
        for tensor in network.parameters()
    }
    bare = copy.deepcopy(network, memo).eval()
    for parent in list(bare.modules()):
        children: list[tuple[str, Any]] = list(parent.named_children())
        for name, child in children:
            if isinstance(child, _LEFT_OUT):
                setattr(parent, name, nn.Identity())
            elif type(child) in _AVERAGE:
                setattr(parent, name, _AVERAGE[type(child)](child.kernel_size, child.stride, child.padding))
            elif getattr(child, "inplace", False) is True:
                child.inplace = False
            elif isinstance(getattr(child, "bias", None), Tensor):
                child.bias = None
    return bare


class _OneChannel(TorchFunctionMode):
    """Every convolution becomes a mean, over its kernel along one axis and over all channels, of one channel."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401  torch's function
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS:
            return self._mean(func, *args, **kwargs)
        if func in _TRANSPOSED:
            return self._spread(func, *args, **kwargs)
        if func in _POOLED_TO_ONE and math.prod(_tuple(args[1], 1)) == 1:
            return torch.ones(*args[0].shape[:2], *(1,) * (args[0].ndim - 2), dtype=args[0].dtype)
        return func(*args, **kwargs)

    def _mean(
        self,
        func: Any,  # noqa: ANN401
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,  # noqa: ARG002
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,  # noqa: ARG002
    ) -> Tensor:
        kernel, axes = tuple(weight.shape[2:]), weight.ndim - 2
        spread = _tuple(dilation, axes)
        around = tuple(padding) if isinstance(padding, (tuple, list)) else padding
        if not isinstance(around, str):
            # Across the other axes a single voxel of the kernel is enough, where the grid is then the same.
            sides = _tuple(around, axes)
            alone = [axis != self.axis and 2 * sides[axis] == spread[axis] * (kernel[axis] - 1) for axis in range(axes)]
            kernel = tuple(1 if one else size for one, size in zip(alone, kernel, strict=True))
            around = tuple(0 if one else side for one, side in zip(alone, sides, strict=True))
        out: Tensor = func(_one(features), _means(kernel, features), None, stride, around, dilation)
        return out

    def _spread(
        self,
        func: Any,  # noqa: ANN401
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,  # noqa: ARG002
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,  # noqa: ARG002
        dilation: int | Sequence[int] = 1,
    ) -> Tensor:
        kernel = _means(tuple(weight.shape[2:]), features)
        out: Tensor = func(_one(features), kernel, None, stride, padding, output_padding, 1, dilation)
        return out


def _one(features: Tensor) -> Tensor:
    return features if features.shape[1] == 1 else features.mean(1, keepdim=True)


def _means(kernel: Size, like: Tensor) -> Tensor:
    return torch.full((1, 1, *kernel), 1 / math.prod(kernel), dtype=like.dtype)


def _tuple(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)


def _short(number: int) -> str:
    """With three digits and the prefix of a thousand: 31.2 M, 1.04 T."""
    value, prefix = float(number), ""
    for larger in ("k", "M", "G", "T", "P"):
        if value < 999.5:
            break
        value, prefix = value / 1000, larger
    return f"{value:.3g} {prefix}".rstrip()
