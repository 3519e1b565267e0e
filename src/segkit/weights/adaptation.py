"""Fitting one tensor of weights to another image, another set of classes, another kernel: pure functions.

Each keeps what the network has learnt where that is possible, and says so as an equation:

    channels in another order      the same response to the same image
    a channel that is new by name  the same response, whatever the new channel shows: its weights begin at zero
    channels of which no name is known  the response to an image that is the same in all its channels stays
    a larger kernel                the same response
    a smaller kernel               the response to an image that does not change along the axis stays
    classes                        the logits of those that both have by name
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

BACKGROUND = "background"


def channel_mixing(
    have: Sequence[str] | None, want: Sequence[str], *, count: int
) -> tuple[Float[Tensor, "want have"], str]:
    """How the weights of the channels that a network wants come from those that a file has.

        weight[:, i] = sum over j of mixing[i, j] * weight_of_the_file[:, j]

    Names are compared without case. Where none is shared: by position if there are equally many, else each wanted
    channel gets 1 / len(want) of the sum over all that the file has.

    Args:
        have: Names in the file; None where it does not say.
        want: Names in the network's data.
        count: Channels in the file.

    Returns:
        The mixing, and in words what it does; no words where it does nothing.
    """
    theirs = {_plain(name): j for j, name in enumerate(have or ())}
    shared = [theirs.get(_plain(name)) for name in want]
    mixing = torch.zeros(len(want), count)
    if len(theirs) != count or all(j is None for j in shared):
        if len(want) == count:
            return torch.eye(count), ""
        mixing.fill_(1 / len(want))
        return mixing, f"{count} channels to {len(want)}: each begins with 1/{len(want)} of their sum"
    for i, j in enumerate(shared):
        if j is not None:
            mixing[i, j] = 1
    if len(want) == count and torch.equal(mixing, torch.eye(count)):
        return mixing, ""
    told = [
        f"{name} by name" if j is not None else f"{name} new, from zero" for name, j in zip(want, shared, strict=True)
    ]
    left = [name for name in have or () if _plain(name) not in map(_plain, want)]
    return mixing, ", ".join(told + [f"{name} dropped" for name in left])


def mix_channels(
    weight: Float[Tensor, "out have *K"], mixing: Float[Tensor, "want have"]
) -> Float[Tensor, "out want *K"]:
    """The kernels of a first layer for other channels; see `channel_mixing`."""
    return torch.einsum("oj...,ij->oi...", weight, mixing.to(weight))


def class_sources(have: Sequence[str] | None, want: Sequence[str], *, count: int) -> tuple[tuple[int | None, ...], str]:
    """Which logit of the file each class of a network begins with.

    By name, without case; by position where the file names no classes and has equally many. Background alone is not
    enough: a trained background beside classes that are not would only win everywhere.

    Args:
        have: Names in the file, in the order of its logits; None where it does not say, empty where they are none.
        want: Names in the network's data.
        count: Logits in the file.

    Returns:
        Position in the file by class, None for a class that begins as it was drawn; and in words what that does, no
        words where it does nothing.
    """
    if have is None and len(want) == count:
        return tuple(range(count)), ""
    theirs = {_plain(name): j for j, name in enumerate(have or ())}
    if len(theirs) != count:
        return (None,) * len(want), "no class of the file is known by name"
    sources = tuple(theirs.get(_plain(name)) for name in want)
    if all(j is None or _plain(name) == BACKGROUND for name, j in zip(want, sources, strict=True)):
        return (None,) * len(want), "no class in common with the file but background"
    if sources == tuple(range(count)):
        return sources, ""
    told = [f"{name} by name" if j is not None else f"{name} new" for name, j in zip(want, sources, strict=True)]
    left = [name for name in have or () if _plain(name) not in map(_plain, want)]
    return sources, ", ".join(told + [f"{name} dropped" for name in left])


def take_classes(
    drawn: Float[Tensor, "want ..."], have: Float[Tensor, "have ..."], sources: Sequence[int | None]
) -> Tensor:
    """The weights of a head, or its bias, with the rows of the classes that are known; the others stay as drawn."""
    out = drawn.detach().clone()
    for row, source in enumerate(sources):
        if source is not None:
            out[row] = have[source].to(out)
    return out


def fit_kernel(weight: Float[Tensor, "out in *K"], size: Sequence[int]) -> Float[Tensor, "out in *L"]:
    """The kernels of a convolution at another size, odd as the old one; zeros round it, or the border takes the rest.

    Args:
        weight: Of the file.
        size: Wanted voxels of the kernel by axis.
    """
    for axis, want in enumerate(size, start=2):
        margin = (want - weight.shape[axis]) // 2
        if margin > 0:
            zeros = torch.zeros_like(weight).narrow(axis, 0, 1).repeat_interleave(margin, axis)
            weight = torch.cat((zeros, weight, zeros), axis)
        elif margin < 0:
            kept = weight.narrow(axis, -margin, want).clone()
            kept.select(axis, 0).add_(weight.narrow(axis, 0, -margin).sum(axis))
            kept.select(axis, -1).add_(weight.narrow(axis, weight.shape[axis] + margin, -margin).sum(axis))
            weight = kept
    return weight


def turn_axes(weight: Tensor, axes: Sequence[int] | None) -> Tensor:
    """Kernels in another order of the image's axes: spatial axis i is the old `axes[i]`; other tensors as they are."""
    if axes is None or weight.ndim != len(axes) + 2:
        return weight
    return weight.permute(0, 1, *(2 + axis for axis in axes))


def _plain(name: str) -> str:
    return name.strip().casefold()
