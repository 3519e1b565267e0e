"""Building blocks of nnU-Net's family: convolution blocks, their stacks, residual blocks, initial weights.

Parameter names follow nnU-Net (`convs.0.conv.weight`, `conv1.norm.bias`, `skip.1.conv.weight`), so that its weights can
be read by name.

Reference:
    Isensee et al., nnU-Net, Nature Methods 18 (2021). He et al., Delving Deep into Rectifiers (2015), for the initial
    weights; He et al., Bag of Tricks (2019), for average pooling on the strided shortcut ("ResNet-D").
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segkit.networks.instance_norm import CHANNELS_LAST, InstanceNorm2d, InstanceNorm3d
from segkit.networks.squeeze_excitation import SqueezeExcitation
from segkit.networks.transposed_convolution import TransposedConv2d, TransposedConv3d

NEGATIVE_SLOPE = 0.01
CONVOLUTION: Mapping[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED_CONVOLUTION: Mapping[int, Callable[..., nn.Module]] = {2: TransposedConv2d, 3: TransposedConv3d}
INSTANCE_NORM: Mapping[int, Callable[..., nn.Module]] = {2: InstanceNorm2d, 3: InstanceNorm3d}


def convolution(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: Sequence[int],
    stride: Sequence[int] | None = None,
    dilation: int = 1,
    bias: bool = True,
) -> nn.Module:
    """A convolution over as many axes as `kernel_size` has, padded so that only the stride shrinks the grid."""
    kernel = tuple(kernel_size)
    return CONVOLUTION[len(kernel)](
        in_channels,
        out_channels,
        kernel,
        stride=tuple(stride) if stride is not None else 1,
        padding=tuple(dilation * (k - 1) // 2 for k in kernel),
        dilation=dilation,
        bias=bias,
    )


def transposed_convolution(in_channels: int, out_channels: int, *, stride: Sequence[int]) -> nn.Module:
    """Learnt upsampling by `stride`: the kernel is the stride, so outputs do not overlap."""
    return TRANSPOSED_CONVOLUTION[len(stride)](in_channels, out_channels, tuple(stride))


def instance_norm(channels: int, dimensions: int) -> nn.Module:
    """Instance normalisation with learnt scale and shift."""
    return INSTANCE_NORM[dimensions](channels, eps=1e-5)


class ConvBlock(nn.Module):
    """Convolution, instance normalisation and, unless `activation` is off, LeakyReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: Sequence[int],
        stride: Sequence[int] | None = None,
        bias: bool = True,
        activation: bool = True,
    ) -> None:
        super().__init__()
        self.conv = convolution(in_channels, out_channels, kernel_size=kernel_size, stride=stride, bias=bias)
        self.norm = instance_norm(out_channels, len(kernel_size))
        # In place: the normalisation's backward reads its input, not its output.
        self.nonlin = nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True) if activation else nn.Identity()

    def forward(self, features: Float[Tensor, "B C *S"]) -> Float[Tensor, "B D *T"]:
        """(B, C, *S) to (B, D, *S / stride)."""
        out: Tensor = self.nonlin(self.norm(self.conv(features)))
        return out


class StackedConvBlocks(nn.Module):
    """`count` convolution blocks in a row; the first one carries the stride and the change of channels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        count: int,
        kernel_size: Sequence[int],
        stride: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        first = ConvBlock(in_channels, out_channels, kernel_size=kernel_size, stride=stride)
        rest = [ConvBlock(out_channels, out_channels, kernel_size=kernel_size) for _ in range(count - 1)]
        self.convs = nn.Sequential(first, *rest)

    def forward(self, features: Float[Tensor, "B C *S"]) -> Float[Tensor, "B D *T"]:
        """(B, C, *S) to (B, D, *S / stride)."""
        out: Tensor = self.convs(features)
        return out


class BlockMean(nn.Module):
    """Mean over blocks of `stride` voxels: average pooling whose backward is deterministic on every device.

    CUDA has no deterministic backward for three-dimensional average pooling. Axes must be divisible by the stride.
    """

    def __init__(self, stride: Sequence[int]) -> None:
        super().__init__()
        self.stride = tuple(stride)

    def forward(self, features: Float[Tensor, "B C *S"]) -> Float[Tensor, "B C *T"]:
        """(B, C, *S) to (B, C, *S / stride)."""
        # Over a view with the channels last where they lie so: a mean of torch's would rearrange them.
        last = features.is_contiguous(memory_format=CHANNELS_LAST[features.ndim])
        mean = features.movedim(1, -1) if last else features
        for axis, step in enumerate(self.stride, start=1 if last else 2):
            if step > 1:
                shape = mean.shape
                mean = mean.reshape(*shape[:axis], -1, step, *shape[axis + 1 :]).mean(axis + 1)
        return mean.movedim(-1, 1) if last else mean

    def extra_repr(self) -> str:
        """Shown by `print(network)`."""
        return f"stride={self.stride}"


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut: LeakyReLU(norm(conv(block(x))) + shortcut(x)).

    The shortcut averages over the stride and projects by a 1-voxel convolution where the channels change. With
    squeeze-and-excitation the channels are weighted before the shortcut is added.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        squeeze_excitation: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = ConvBlock(in_channels, out_channels, kernel_size=kernel_size, stride=stride)
        self.conv2 = ConvBlock(out_channels, out_channels, kernel_size=kernel_size, activation=False)
        self.excitation = SqueezeExcitation(out_channels) if squeeze_excitation else nn.Identity()
        self.nonlin2 = nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)
        shortcut: list[nn.Module] = []
        if any(step > 1 for step in stride):
            shortcut.append(BlockMean(stride))
        if in_channels != out_channels:
            one = (1,) * len(kernel_size)
            shortcut.append(ConvBlock(in_channels, out_channels, kernel_size=one, bias=False, activation=False))
        self.skip = nn.Sequential(*shortcut)

    def forward(self, features: Float[Tensor, "B C *S"]) -> Float[Tensor, "B D *T"]:
        """(B, C, *S) to (B, D, *S / stride)."""
        out: Tensor = self.nonlin2(self.excitation(self.conv2(self.conv1(features))) + self.skip(features))
        return out


class StackedResidualBlocks(nn.Module):
    """`count` residual blocks in a row; the first one carries the stride and the change of channels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        count: int,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        squeeze_excitation: bool = False,
    ) -> None:
        super().__init__()
        block = partial(ResidualBlock, kernel_size=kernel_size, squeeze_excitation=squeeze_excitation)
        one = (1,) * len(kernel_size)
        first = block(in_channels, out_channels, stride=stride)
        self.blocks = nn.Sequential(first, *(block(out_channels, out_channels, stride=one) for _ in range(count - 1)))

    def forward(self, features: Float[Tensor, "B C *S"]) -> Float[Tensor, "B D *T"]:
        """(B, C, *S) to (B, D, *S / stride)."""
        out: Tensor = self.blocks(features)
        return out


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """He's normal weights for LeakyReLU, zero biases; a residual block begins as its shortcut.

    For use with `network.apply`. The last normalisation of a residual block starts at zero, as in nnU-Net.
    """
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, ResidualBlock):
        # `apply` visits children first, so this is the last word on the normalisation.
        for parameter in module.conv2.norm.parameters():
            nn.init.zeros_(parameter)
