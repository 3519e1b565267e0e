"""What all encoder-decoder networks share: any input size, the output contract, checks of the topology."""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from segkit.errors import UsageError
from segkit.ops.padding import crop, pad_to_size
from segkit.types import Size


class AnySize(nn.Module):
    """A network that takes images of any size; a subclass says in `levels` what becomes of a grid that fits it.

    The image is padded by its edge values to the grid that the network needs, and every output is cropped back. The
    logits of level i have round(size / stride of the level) voxels an axis, at least one.

    Args:
        level_strides: Image voxels to one voxel of each level that has a head, by axis, finest first; may go on below.
        divisor: What the grid has to be divisible by, by axis.
        num_heads: Heads.
        deep_supervision: Whether training returns the logits of all heads.
    """

    def __init__(self, *, level_strides: Sequence[Size], divisor: Size, num_heads: int, deep_supervision: bool) -> None:
        super().__init__()
        self.level_strides = tuple(level_strides)
        self.divisor = divisor
        self.num_heads = num_heads
        self.deep_supervision = deep_supervision

    def forward(self, image: Float[Tensor, "B C *S"]) -> Tensor | list[Tensor]:
        """Logits (B, K, *S); in training with deep supervision a list of them, finest first."""
        supervised = self.training and self.deep_supervision
        size = tuple(image.shape[2:])
        padded, slices = pad_to_size(image, inner_size(size, self.divisor), mode="replicate")
        outputs = self.levels(padded, all_heads=supervised)
        if not supervised:
            return crop(outputs[0], slices)
        before = tuple(part.start for part in slices)
        return [
            crop(output, level_slices(size, before, stride))
            for output, stride in zip(outputs, self.level_strides, strict=False)
        ]

    def levels(self, image: Float[Tensor, "B C *S"], *, all_heads: bool) -> list[Tensor]:
        """Logits of a grid that `divisor` divides, finest first: of every head, or of the finest alone."""
        raise NotImplementedError

    def num_parameters(self) -> int:
        """Learnt numbers."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)


class EncoderDecoder(AnySize):
    """An encoder and a decoder on images of any size.

    Args:
        encoder: Image to feature maps, finest first.
        decoder: Feature maps to logits, finest first; takes `all_heads`.
        strides: Stride of each stage and axis.
        num_heads: Heads of the decoder.
        deep_supervision: Whether training returns the logits of all heads.
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, *, strides: Sequence[Size], num_heads: int, deep_supervision: bool
    ) -> None:
        products = cumulative_strides(strides)
        super().__init__(
            level_strides=products, divisor=products[-1], num_heads=num_heads, deep_supervision=deep_supervision
        )
        self.encoder = encoder
        self.decoder = decoder

    def levels(self, image: Float[Tensor, "B C *S"], *, all_heads: bool) -> list[Tensor]:
        """Logits of a grid that `divisor` divides, finest first."""
        outputs: list[Tensor] = self.decoder(self.encoder(image), all_heads=all_heads)
        return outputs


def inner_size(size: Size, divisor: Size) -> Size:
    """The smallest grid that holds `size`, is divisible by `divisor` and leaves the bottleneck two voxels.

    Instance normalisation of a single voxel is undefined, so a one-voxel bottleneck is doubled along its last axis.
    """
    cells = [-(-have // step) for have, step in zip(size, divisor, strict=True)]
    if math.prod(cells) == 1:
        cells[-1] = 2
    return tuple(count * step for count, step in zip(cells, divisor, strict=True))


def level_slices(size: Size, before: Size, stride: Size) -> tuple[slice, ...]:
    """Where the image lies on the grid of a level, to the nearest voxel.

    Args:
        size: Voxels of the image.
        before: Voxels of padding in front of it.
        stride: Image voxels to one voxel of the level, by axis.
    """
    slices = []
    for have, lead, step in zip(size, before, stride, strict=True):
        count = max(1, (2 * have + step) // (2 * step))
        # Whole numbers of half level voxels, so that the centres of image and slice lie closest together.
        start = (2 * lead + have - count * step + step) // (2 * step)
        slices.append(slice(start, start + count))
    return tuple(slices)


def cumulative_strides(strides: Sequence[Size]) -> tuple[Size, ...]:
    """Image voxels to one voxel of each stage: the running product of the strides."""
    products: list[Size] = []
    for stride in strides:
        last = products[-1] if products else (1,) * len(stride)
        products.append(tuple(a * b for a, b in zip(last, stride, strict=True)))
    return tuple(products)


def check_topology(
    dimensions: int, features: Sequence[int], strides: Sequence[Sequence[int]], kernel_sizes: Sequence[Sequence[int]]
) -> tuple[tuple[Size, ...], tuple[Size, ...]]:
    """Strides and kernels as tuples, after checking that they fit together.

    Raises:
        UsageError: Numbers of stages or axes differ, there is one stage only, the first stage strides, or a kernel is
            even.
    """
    stride_sizes = tuple(tuple(stride) for stride in strides)
    kernels = tuple(tuple(kernel) for kernel in kernel_sizes)
    counts = {"features": len(features), "strides": len(stride_sizes), "kernel_sizes": len(kernels)}
    found = ", ".join(f"{name} {count}" for name, count in counts.items())
    if len(set(counts.values())) > 1 or len(features) < 2:
        raise UsageError(
            "the network's stages do not fit together",
            where="plan.features, plan.strides, plan.kernel_sizes",
            why=f"entries: {found}; they must be equal and at least 2",
            mend="give as many strides and kernel_sizes as features",
        )
    if dimensions not in (2, 3) or any(len(size) != dimensions for size in stride_sizes + kernels):
        raise UsageError(
            "the network's strides and kernels do not have the image's axes",
            where="plan.strides, plan.kernel_sizes",
            why=f"dimensions is {dimensions}, strides {stride_sizes}, kernel_sizes {kernels}",
            mend="give two numbers a stage for 2D images, three for 3D",
        )
    if any(step != 1 for step in stride_sizes[0]) or any(k % 2 == 0 for kernel in kernels for k in kernel):
        raise UsageError(
            "the network would not end on the image's grid",
            where="plan.strides, plan.kernel_sizes",
            why=f"the first stride is {stride_sizes[0]}, kernels are {kernels}",
            mend="let the first stride be 1 on each axis, and kernel sizes be odd",
        )
    return stride_sizes, kernels


def per_stage(value: int | Sequence[int], stages: int, *, name: str) -> tuple[int, ...]:
    """One number for each stage, from one for all or from a list.

    Raises:
        UsageError: The list has another length.
    """
    values = (value,) * stages if isinstance(value, int) else tuple(value)
    if len(values) != stages or min(values) < 1:
        raise UsageError(
            f"{name} does not fit the stages",
            where=f"network.{name}",
            why=f"{values} for {stages} stages",
            mend=f"give one number, or {stages} of them, each at least 1",
        )
    return values


def count_heads(stages: int, *, deep_supervision: bool, supervised_levels: int | None) -> int:
    """Heads to build: one without deep supervision, else `supervised_levels`, by default one a decoder level.

    Raises:
        UsageError: More levels than the decoder has, or none.
    """
    levels = stages - 1
    heads = levels if supervised_levels is None else supervised_levels
    if not 1 <= heads <= levels:
        raise UsageError(
            "no such number of supervised levels",
            where="network.supervised_levels",
            why=f"{heads}, where the decoder has {levels} levels",
            mend=f"network.supervised_levels={levels}",
        )
    return heads if deep_supervision else 1
