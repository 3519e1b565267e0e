"""Linear operators that act along each axis of an image: one small matrix an axis."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor


def apply_along_axes(
    images: Float[Tensor, "N *S"], matrices: Sequence[Float[Tensor, "N _ _"] | None]
) -> Float[Tensor, "N *T"]:
    """Multiply every line along axis k of image i by `matrices[k][i]`.

    Each product puts the transformed axis last, so that after all axes the order is the old one again and nothing was
    copied in between. For lines of up to a few hundred voxels this beats a convolution of the same kernel on the CPU:
    it is limited by arithmetic, not by memory.

    Args:
        images: (N, *S).
        matrices: One entry a spatial axis: (N, new, old), or None where nothing happens along it.

    Returns:
        (N, *T), T the `new` of each matrix.
    """
    result = images
    for matrix in matrices:
        length, rest = result.shape[1], result.shape[2:]
        lines = result.reshape(result.shape[0], length, -1).transpose(1, 2)
        if matrix is not None:
            lines = lines @ matrix.transpose(1, 2)
        result = lines.reshape(result.shape[0], *rest, lines.shape[2])
    return result
