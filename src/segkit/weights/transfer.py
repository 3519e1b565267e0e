"""From weights as a file has them to the state of a network, with a table of what became of each tensor.

loaded    the file's numbers, in the order of this network's axes
adapted   the file's numbers, fitted to other channels, classes or kernels; see `segkit.weights.adaptation`
initial   as the network was drawn: the file has no such tensor, or one that cannot be fitted
unused    in the file, not in the network
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor, nn

from segkit.errors import UsageError
from segkit.networks.ends import Ends, find_ends
from segkit.weights.adaptation import channel_mixing, class_sources, fit_kernel, mix_channels, take_classes, turn_axes
from segkit.weights.source import Source

Fate: TypeAlias = Literal["loaded", "adapted", "initial", "unused"]
_TRIAL = 32
"""Voxels an axis, at most, of the image by which the ends of the network are found."""
_HEADS = "seg_layers."


@dataclass(frozen=True)
class Row:
    """What became of a tensor.

    Args:
        name: In the network; of an unused one, in the file.
        fate: See the module.
        told: How it was adapted, or why it was not taken.
    """

    name: str
    fate: Fate
    told: str = ""


@dataclass(frozen=True)
class Transfer:
    """The state of a network that begins with the weights of a file.

    Args:
        state: Every tensor of the network, by name.
        rows: One a tensor of the network, in its order, then the unused ones of the file.
    """

    state: Mapping[str, Tensor]
    rows: tuple[Row, ...]

    def count(self, fate: Fate) -> int:
        """Tensors of this fate."""
        return sum(row.fate == fate for row in self.rows)


def transfer(
    network: nn.Module, source: Source, *, channels: Sequence[str], classes: Sequence[str], patch_size: Sequence[int]
) -> Transfer:
    """Fit the weights of a file to a network; neither is changed.

    Args:
        network: As it was drawn.
        source: The file.
        channels: Names of the image's channels, in order.
        classes: Names of the classes in the order of the logits, background first.
        patch_size: Voxels of a training patch; smaller images are tried where it is larger than 32.

    Raises:
        UsageError: The file has no tensor of the network; or other classes, and the network's heads cannot be told.
    """
    size = [min(voxels, _TRIAL) for voxels in patch_size]
    fitting = _Fitting(source, network, find_ends(network, in_channels=len(channels), size=size), channels, classes)
    drawn = network.state_dict()
    named = match_names(source.tensors, drawn)
    if not named:
        raise UsageError(
            "No tensor of the file is one of this network.",
            where="weights",
            why=f"{source.told}: {_few(source.tensors)}; the network: {_few(drawn)}",
            mend=" ".join(source.overrides) or "network=<the network that the weights were trained in>",
        )
    state, rows = {}, []
    for name, initial in drawn.items():
        theirs = named.get(name)
        if theirs is None:
            state[name], row = initial, Row(name, "initial", "not in the file")
        else:
            state[name], row = fitting.fit(name, initial, source.tensors[theirs])
        rows.append(row)
    unused = [Row(name, "unused", "not in this network") for name in source.tensors if name not in set(named.values())]
    return Transfer(state, (*rows, *unused))


def match_names(theirs: Iterable[str], ours: Iterable[str]) -> dict[str, str]:
    """Which tensor of a file is which of a network: the same name but for what stands before it.

    Wrappers and containers put a name before all others (`module.`, `net.encoder.`), and a file of a part lacks it. Of
    all ways to take some away from the file's names and put one of the network's there, the one that matches most.

    Returns:
        The network's name to the file's.
    """
    known, given = set(ours), list(theirs)
    taken = ["", *sorted({prefix for name in given for prefix in _prefixes(name, 4)}, key=len)]
    put = ["", *sorted({prefix for name in known for prefix in _prefixes(name, 1)})]
    best: dict[str, str] = {}
    for away in taken:
        rest = {name: name.removeprefix(away) for name in given if name.startswith(away)}
        for before in put:
            found = {before + end: name for name, end in rest.items() if before + end in known}
            if len(found) > len(best):
                best = found
    return best


def refuse_inexact(found: Transfer, source: Source) -> None:
    """Refuse a transfer in which a tensor of the network is not the file's own, or one of the file is left over.

    The coarse heads of nnU-Net may be left over: it builds one a level, trained or not.

    Raises:
        UsageError: With the counts, the first of each, and the overrides that build the file's own network.
    """
    odd = [row for row in found.rows if row.fate in ("adapted", "initial")]
    heads = source.layout == "nnunet"
    odd += [row for row in found.rows if row.fate == "unused" and not (heads and _HEADS in row.name)]
    if odd:
        counts = Counter(row.fate for row in odd)
        first = {fate: next(row for row in odd if row.fate == fate) for fate in counts}
        why = "; ".join(f"{counts[fate]} {fate}, such as {row.name} ({row.told})" for fate, row in first.items())
        raise UsageError(
            "The weights are not those of this network.",
            where="weights_match=strict",
            why=why,
            mend=" ".join(source.overrides) or "weights_match=adapt",
        )


class _Fitting:
    """How the tensors of one file are fitted to one network."""

    def __init__(
        self, source: Source, network: nn.Module, ends: Ends, channels: Sequence[str], classes: Sequence[str]
    ) -> None:
        self.source, self.ends, self.channels, self.classes = source, ends, channels, classes
        self.convolutions = {n for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Conv3d)}
        if not ends.logits and source.classes is not None and source.classes != tuple(classes):
            raise UsageError(
                "The classes of the weights cannot be brought into this network's order.",
                where="weights",
                why=f"the file has {', '.join(source.classes)}; which layers write the logits of "
                f"{type(network).__name__} is not known",
                mend=f"use a file with the classes {', '.join(classes)}",
            )

    def fit(self, name: str, initial: Tensor, weight: Tensor) -> tuple[Tensor, Row]:
        """A tensor of the network made from one of the file, and its row of the table."""
        module, _, kind = name.rpartition(".")
        told: list[str] = []
        if initial.is_floating_point() != weight.is_floating_point() or weight.is_complex():
            return initial, Row(name, "initial", f"{weight.dtype} in the file, {initial.dtype} here")
        found = turn_axes(weight, self.source.axes)
        kernel = kind == "weight" and module in self.convolutions and found.ndim == initial.ndim
        if kernel and module in self.ends.image:
            mixing, words = channel_mixing(self.source.channels, self.channels, count=found.shape[1])
            if words:
                found = mix_channels(found, mixing)
                told.append(words)
        size, wanted = tuple(found.shape[2:]), tuple(initial.shape[2:])
        if kernel and size != wanted and all((a - b) % 2 == 0 for a, b in zip(size, wanted, strict=True)):
            found = fit_kernel(found, wanted)
            told.append(f"kernel {_by(size)} to {_by(wanted)}")
        if module in self.ends.logits and found.shape[1:] == initial.shape[1:]:
            sources, words = class_sources(self.source.classes, self.classes, count=len(found))
            if words and set(sources) == {None}:
                return initial, Row(name, "initial", words)
            if words:
                found = take_classes(initial, found, sources)
                told.append(words)
        if found.shape != initial.shape:
            return initial, Row(name, "initial", f"{_by(found.shape)} in the file, {_by(initial.shape)} here")
        return found.to(initial), Row(name, "adapted" if told else "loaded", "; ".join(told))


def _prefixes(name: str, parts: int) -> list[str]:
    words = name.split(".")
    return [".".join(words[:count]) + "." for count in range(1, min(parts, len(words) - 1) + 1)]


def _few(names: Iterable[str]) -> str:
    return ", ".join([*names][:3])


def _by(shape: Sequence[int]) -> str:
    return " x ".join(str(size) for size in shape) or "one number"
