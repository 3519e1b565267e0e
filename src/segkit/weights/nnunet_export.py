"""A network of segkit as a trained model of nnU-Net: the folder that nnU-Net 2.8.1 predicts from and fine-tunes.

    FOLDER/dataset.json                   channels and classes
    FOLDER/plans.json                     spacing, normalisation, patch and topology, in nnU-Net's axes
    FOLDER/fold_0/checkpoint_final.pth    the weights, under every name that nnU-Net gives them

Volumes are read there by NibabelIOWithReorient, which brings them into RAS+ order as segkit does. Classes are numbered
from 0 in the network's order, whatever their ids were, and the first one is called `background`, as nnU-Net asks. Heads
that segkit does not build are zeros: nnU-Net never reads them in prediction. There is no optimizer state:
`-pretrained_weights` takes the file, `--c` does not.
"""

import glob
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segkit.errors import UsageError
from segkit.networks.encoder_decoder import EncoderDecoder
from segkit.networks.residual_unet import ResidualUNet
from segkit.networks.squeeze_excitation import SqueezeExcitation
from segkit.networks.unet import UNet
from segkit.planning.plan import Plan
from segkit.runs.files import sync_file, sync_folder, write_json
from segkit.runs.leftovers import abandoned, discard, temporary_beside
from segkit.runs.system_errors import as_the_system_said
from segkit.weights.adaptation import turn_axes
from segkit.weights.nnunet import WEIGHTS, axes_of

TRAINER, NAME, PLANS = "nnUNetTrainer", "Dataset999_segkit", "segkitPlans"
_ARCHITECTURES = {UNet: "PlainConvUNet", ResidualUNet: "ResidualEncoderUNet"}
_SCHEMES = {"zscore": "ZScoreNormalization", "ct": "CTNormalization", "none": "NoNormalization"}
_RESAMPLING = "resample_data_or_seg_to_shape"
_BLOCK = re.compile(r"^(.*(?:convs\.\d+|conv[12]|skip\.\d+))\.(conv|norm)\.(\w+)$")


def write_model_folder(folder: Path, network: nn.Module, plan: Plan) -> None:
    """Write a network and its plan as a trained model of nnU-Net; the folder is there when it is whole.

    Args:
        folder: Where; made with its parents, it must not be there.
        network: Plain or residual U-Net without attention gates or squeeze-excitation.
        plan: What it was trained by.

    Raises:
        UsageError: nnU-Net has no such network.
        OSError: As the system gave it; nothing is left behind.
    """
    axes = axes_of(plan.dimensions, (0, 1, 2))
    dataset, plans, configuration = dataset_json(plan), plans_json(network, plan), configuration_name(plan)
    mirrored = tuple(sorted(axis if axes is None else axes.index(axis) for axis in plan.flip_axes))
    checkpoint = {
        WEIGHTS: network_weights(network, axes),
        "trainer_name": TRAINER,
        "init_args": {"plans": plans, "configuration": configuration, "fold": 0, "dataset_json": dataset},
        "inference_allowed_mirroring_axes": mirrored or None,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in folder.parent.glob(f".{glob.escape(folder.name)}.*.tmp"):
        if abandoned(leftover):  # by a process that was killed here
            discard(leftover)
    temporary = temporary_beside(folder)
    try:
        (temporary / "fold_0").mkdir(parents=True)
        file = temporary / "fold_0" / "checkpoint_final.pth"
        with as_the_system_said(file), file.open("wb") as opened:
            torch.save(checkpoint, opened)
        sync_file(file)
        sync_folder(file.parent)
        write_json(temporary / "plans.json", plans)
        write_json(temporary / "dataset.json", dataset)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(folder.parent)


def network_weights(network: nn.Module, axes: Sequence[int] | None) -> dict[str, Tensor]:
    """The tensors of a network under all names that nnU-Net gives them, on the CPU, kernels in its axes.

    Args:
        network: Plain or residual U-Net without attention gates or squeeze-excitation.
        axes: Axis i of segkit's images is axis `axes[i]` of nnU-Net's; None where they are the same.

    Raises:
        UsageError: nnU-Net has no such network.
    """
    unet = _unet(network)
    back = None if axes is None else tuple(axes.index(axis) for axis in range(len(axes)))
    named: dict[str, Tensor] = {}
    for name, tensor in [*unet.state_dict().items(), *_missing_heads(unet)]:
        turned = turn_axes(tensor.detach().cpu(), back).contiguous()
        for own in (name, f"decoder.{name}") if name.startswith("encoder.") else (name,):
            named[own] = turned
            if block := _BLOCK.match(own):
                named[f"{block[1]}.all_modules.{0 if block[2] == 'conv' else 1}.{block[3]}"] = turned
    return named


def dataset_json(plan: Plan) -> dict[str, Any]:
    """nnU-Net's description of the data."""
    return {
        "channel_names": {str(number): name for number, name in enumerate(plan.channels)},
        "labels": {name: number for number, name in enumerate(class_names(plan))},
        "numTraining": 0,
        "file_ending": file_ending(plan),
    }


def class_names(plan: Plan) -> tuple[str, ...]:
    """What nnU-Net is to call the classes: the first one is `background` there, and no other."""
    return "background", *(f"{name} class" if name == "background" else name for name in plan.labels.foreground)


def file_ending(plan: Plan) -> str:
    """Of the images that nnU-Net is given: the reader that the plans name takes no others."""
    return ".nii.gz" if plan.dimensions == 3 else ".png"


def configuration_name(plan: Plan) -> str:
    """What nnU-Net calls a network of so many axes."""
    return "3d_fullres" if plan.dimensions == 3 else "2d"


def plans_json(network: nn.Module, plan: Plan) -> dict[str, Any]:
    """nnU-Net's plans: what its prediction and its fine-tuning read.

    Raises:
        UsageError: nnU-Net has no such network.
    """
    volumes = plan.dimensions == 3
    axes = axes_of(plan.dimensions, (0, 1, 2))

    def there(values: Sequence[Any]) -> list[Any]:
        return list(values) if axes is None else [values[axes.index(axis)] for axis in range(len(axes))]

    spacing = there(plan.spacing)
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": NAME,
        "plans_name": PLANS,
        "image_reader_writer": "NibabelIOWithReorient" if volumes else "NaturalImage2DIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "original_median_spacing_after_transp": spacing if volumes else [999.0, *spacing],
        "foreground_intensity_properties_per_channel": _intensities(plan),
        "configurations": {
            configuration_name(plan): {
                "data_identifier": f"{PLANS}_{configuration_name(plan)}",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": plan.batch_size,
                "patch_size": there(plan.patch_size),
                "spacing": spacing,
                "normalization_schemes": [_SCHEMES[channel.scheme] for channel in plan.normalisation],
                "use_mask_for_norm": [channel.masked for channel in plan.normalisation],
                "resampling_fn_data": _RESAMPLING,
                "resampling_fn_data_kwargs": resampling,
                "resampling_fn_seg": _RESAMPLING,
                "resampling_fn_seg_kwargs": resampling | {"is_seg": True, "order": 1},
                "resampling_fn_probabilities": _RESAMPLING,
                "resampling_fn_probabilities_kwargs": resampling | {"order": 1},
                "batch_dice": plan.batch_dice,
                "architecture": _architecture(_unet(network), there),
            }
        },
    }


def _unet(network: nn.Module) -> EncoderDecoder:
    kind = type(network)
    parts = {"attention gates": any("gates" in name for name, _ in network.named_parameters())}
    parts["squeeze-excitation"] = any(isinstance(module, SqueezeExcitation) for module in network.modules())
    foreign = [name for name, there in parts.items() if there]
    if kind not in _ARCHITECTURES or foreign or not isinstance(network, EncoderDecoder):
        said = f"{kind.__name__}{' with ' if foreign else ''}{' and '.join(foreign)}"
        raise UsageError(
            "nnU-Net has no such network.",
            where="network",
            why=f"{said}; it reads plain and residual U-Nets",
            mend="export a run of network=unet or network=residual_unet",
        )
    return network


def _convolutions(network: EncoderDecoder) -> Iterator[tuple[nn.Conv2d | nn.Conv3d, int]]:
    """The first convolution of each encoder stage, and the number of its convolutions or blocks."""
    stages: Any = network.encoder.stages
    for stage in stages:
        if isinstance(network, ResidualUNet):
            yield stage.blocks[0].conv1.conv, len(stage.blocks)
        else:
            yield stage[0].convs[0].conv, len(stage[0].convs)


def _architecture(network: EncoderDecoder, there: Callable[[Sequence[Any]], list[Any]]) -> dict[str, Any]:
    """The topology, read from the network itself."""
    stages = list(_convolutions(network))
    counts = "n_blocks_per_stage" if isinstance(network, ResidualUNet) else "n_conv_per_stage"
    axes = len(network.divisor)
    decoder: Any = network.decoder
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{_ARCHITECTURES[type(network)]}",
        "arch_kwargs": {
            "n_stages": len(stages),
            "features_per_stage": [convolution.out_channels for convolution, _ in stages],
            "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
            "kernel_sizes": [there(convolution.kernel_size) for convolution, _ in stages],
            "strides": [there(convolution.stride) for convolution, _ in stages],
            counts: [count for _, count in stages],
            "n_conv_per_stage_decoder": [len(stage.convs) for stage in decoder.stages],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _missing_heads(network: EncoderDecoder) -> list[tuple[str, Tensor]]:
    """Zeros for the heads of the coarse levels that segkit does not build."""
    decoder: Any = network.decoder
    heads = decoder.seg_layers
    classes = next(iter(heads.values())).out_channels
    missing = []
    for stage, convolutions in enumerate(decoder.stages):
        if str(stage) not in heads:
            shape = (classes, convolutions.convs[-1].conv.out_channels, *(1,) * len(network.divisor))
            name = f"decoder.seg_layers.{stage}"
            missing += [(f"{name}.weight", torch.zeros(shape)), (f"{name}.bias", torch.zeros(classes))]
    return missing


def _intensities(plan: Plan) -> dict[str, dict[str, float]]:
    """Foreground statistics by channel; only those of a CT are read."""
    facts = {}
    for number, channel in enumerate(plan.normalisation):
        low, high = channel.low or 0.0, channel.high or 0.0
        facts[str(number)] = {
            "mean": channel.mean or 0.0,
            "std": channel.std or 1.0,
            "min": low,
            "max": high,
            "median": channel.mean or 0.0,
            "percentile_00_5": low,
            "percentile_99_5": high,
        }
    return facts
