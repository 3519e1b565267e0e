"""MONAI's networks under the contract of segkit's: one adapter for all of them, a small class for each.

What they differ in, and the adapter hides: image sizes that they cannot divide (padded and cropped again), heads that
come stacked, upsampled, as a tuple, coarse ones first or in evaluation too (a list of logits in training, finest first,
each at its own resolution; one tensor in evaluation), heads and layers that nothing reads (not built, since they have
parameters without a gradient), tensors that are registered twice (once), names of arguments. Width and, where the
architecture leaves it open, depth, strides and kernels come from the plan.

MONAI takes seconds to import, so these files are imported only when a configuration names one of them.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from segkit.networks.encoder_decoder import AnySize, cumulative_strides
from segkit.types import Size


class MonaiNetwork(AnySize):
    """A network of MONAI's on images of any size.

    Args:
        network: MONAI's, without types. Its state dict is this one's below `network.`.
        level_strides: Image voxels to one voxel of each level that has a head, by axis, finest first.
        divisor: What the grid has to be divisible by, by axis.
        deep_supervision: Whether training returns the logits of all heads.
    """

    def __init__(
        self,
        network: Any,  # noqa: ANN401
        *,
        level_strides: Sequence[Size],
        divisor: Size,
        deep_supervision: bool,
    ) -> None:
        super().__init__(
            level_strides=level_strides,
            divisor=divisor,
            num_heads=len(level_strides),
            deep_supervision=deep_supervision,
        )
        self.network: Any = network

    def levels(self, image: Tensor, *, all_heads: bool) -> list[Tensor]:
        """Logits of a grid that `divisor` divides, finest first: for networks that return them in this order."""
        outputs = self.network(image)
        found = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        return found[: self.num_heads if all_heads else 1]


def halved_levels(count: int, dimensions: int) -> tuple[Size, ...]:
    """Strides of `count` levels of which each halves all axes of the one before: 1, 2, 4, ..."""
    return cumulative_strides([(1,) * dimensions, *[(2,) * dimensions] * (count - 1)])


def supervised_heads(levels: int, *, deep_supervision: bool, supervised_levels: int | None) -> int:
    """Heads of a network whose depth is its own: as asked, as far as there are levels; one without deep supervision."""
    return min(levels, supervised_levels or levels) if deep_supervision else 1
