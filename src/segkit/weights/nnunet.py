"""nnU-Net's checkpoints: its names, its axes, and what its files say of themselves.

nnU-Net 2.8.1 registers most tensors twice or more: a convolution also as the first of `all_modules`, the encoder also
as `decoder.encoder`. Its images are (z, y, x) of the file, then turned by `transpose_forward`, where segkit's volumes
are (x, y, z): the kernels of volumes turn their axes round on the way. Self-supervised checkpoints made for nnU-Net
(`network_weights` beside `nnssl_adaptation_plan`) share names and axes, and name neither channels nor classes.

Reference:
    Isensee et al., nnU-Net, Nature Methods 18 (2021); Wald et al., An OpenMind for 3D medical vision self-supervised
    learning (2025), for the adaptation plan.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from segkit.weights.source import Source

WEIGHTS, PRETRAINED = "network_weights", "nnssl_adaptation_plan"
CLASSES = {"PlainConvUNet": "unet", "ResidualEncoderUNet": "residual_unet"}
"""nnU-Net's networks, and the configurations that build the same here."""


class _Unread:
    """Stands for a number of numpy's while a checkpoint is read: nnU-Net's log holds them, and nobody here wants them.

    In the place of numpy's own functions, so that a file can make them do nothing at all.
    """

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


NAMED: tuple[tuple[Callable[..., Any], str], ...] = (
    (_Unread, "numpy._core.multiarray.scalar"),
    (_Unread, "numpy.core.multiarray.scalar"),  # as numpy 1 called it
    (_Unread, "numpy.dtype"),
)
"""All that may stand in a checkpoint of nnU-Net beside tensors and plain values, and what is called in its place."""


def once(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor by its own name alone, without the second names that nnU-Net's modules give it."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if ".all_modules." not in name and ".decoder.encoder." not in f".{name}"
    }


def is_nnunets(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of nnU-Net's modules."""
    return any(".all_modules." in name for name in tensors)


def source(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Source:
    """What a checkpoint of nnU-Net, or one made for it, says.

    Args:
        content: The file.
        tensors: Its tensors, by its names.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: It says what nnU-Net does not write.
    """
    begun = content.get("init_args") or {}
    plans, dataset = begun.get("plans") or {}, begun.get("dataset_json") or {}
    configuration = _configuration(plans.get("configurations") or {}, str(begun.get("configuration")))
    turned = plans.get("transpose_forward")
    told = "nnU-Net's tensors"
    if begun:
        trainer, fold = content.get("trainer_name", "nnU-Net"), begun.get("fold")
        told = f"a checkpoint of nnU-Net ({trainer}, {begun.get('configuration')}, fold {fold})"
    elif PRETRAINED in content:
        adaptation = content[PRETRAINED]
        name = (adaptation.get("architecture_plans") or {}).get("arch_class_name")
        told = f"a self-supervised checkpoint for nnU-Net ({name or 'network not named'})"
        turned = (adaptation.get("pretrain_plan") or {}).get("transpose_forward")
    single = once(tensors)
    axes = axes_of(spatial_axes(single), turned or (0, 1, 2))
    return Source(
        tensors=single,
        layout="nnunet",
        told=told[:200],
        channels=_channels(dataset.get("channel_names")),
        classes=_classes(dataset.get("labels")),
        axes=axes,
        overrides=_overrides(configuration.get("architecture") or {}, axes),
    )


def spatial_axes(tensors: Mapping[str, Tensor]) -> int:
    """Spatial axes of the kernels: 2 or 3; 0 where there is no kernel."""
    return max((tensor.ndim - 2 for tensor in tensors.values() if tensor.ndim in (4, 5)), default=0)


def axes_of(dimensions: int, transpose_forward: Sequence[int]) -> tuple[int, ...] | None:
    """Which axis of nnU-Net's kernels is which of segkit's.

    Axis t of nnU-Net's volumes is axis `transpose_forward[t]` of (z, y, x); axis i of segkit's is that of (x, y, z).
    Pictures are (1, height, width) there, (height, width) here. A 2D network of slices along another axis than the
    file's first has no counterpart here; its axes are left as they are.

    Returns:
        Axis i of segkit's is axis `axes[i]` of nnU-Net's; None where they are the same.
    """
    turned = [int(axis) for axis in transpose_forward]
    if sorted(turned) != [0, 1, 2]:
        raise ValueError(f"transpose_forward is {turned}")
    if dimensions == 3:
        axes = tuple(turned.index(2 - axis) for axis in range(3))
    elif dimensions == 2 and turned[0] == 0:
        axes = tuple(turned.index(axis + 1) - 1 for axis in range(2))
    else:
        return None
    return None if axes == tuple(range(dimensions)) else axes


def _configuration(configurations: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A configuration of the plans with what it inherits."""
    found: dict[str, Any] = {}
    for _ in configurations:  # no chain is longer, however it is tied
        own = configurations.get(name) or {}
        found = {**own, **found}
        name = own.get("inherits_from") or ""
    return found


def _channels(names: Mapping[str, str] | None) -> tuple[str, ...] | None:
    """Channel names in order of their number."""
    return tuple(str(names[key]) for key in sorted(names, key=int)) if names else None


def _classes(labels: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    """Class names in the order of the logits; empty where the labels are overlapping regions."""
    if not labels:
        return None
    if any(isinstance(value, (list, tuple)) for value in labels.values()):
        return ()
    return tuple(sorted((str(name) for name in labels if name != "ignore"), key=lambda name: int(labels[name])))


def _overrides(architecture: Mapping[str, Any], axes: tuple[int, ...] | None) -> tuple[str, ...]:
    """The words of a command line by which segkit builds the same network; empty where it has no such network."""
    network = CLASSES.get(str(architecture.get("network_class_name")).rpartition(".")[2])
    given = architecture.get("arch_kwargs") or {}
    if network is None or not given:
        return ()

    def sizes(name: str) -> str:
        turned = ([size[axis] for axis in axes] if axes else size for size in given[name])
        return "[" + ",".join(_listed(size) for size in turned) + "]"

    words = [f"network={network}", f"plan.features={_listed(given['features_per_stage'])}"]
    words += [f"plan.strides={sizes('strides')}", f"plan.kernel_sizes={sizes('kernel_sizes')}"]
    if network == "residual_unet":
        words += [f"plan.blocks_per_stage={_listed(given['n_blocks_per_stage'])}"]
    return tuple(words)


def _listed(values: Sequence[Any]) -> str:
    return "[" + ",".join(str(int(value)) for value in values) + "]"
