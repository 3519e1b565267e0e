"""nnU-Net: its trainer, loaders, transforms, predictor and preprocessing, as they are.

What it does by itself is kept: on a GPU fp16, compilation and its 12 workers, on a CPU fp32. Four things it needs
from outside are given to it here:

- `nnUNetv2_train` imports every trainer there is in search of the one that was asked for; one of them needs
  torchvision, which does not exist for a CPU build of torch. The class is built directly instead.
- Its paths are environment variables, its data set a folder named DatasetXXX_Name: links in the workspace.
- Its trainer pops "continue_training" from the plans, which nothing but its command line puts there.
- It tells the format of prepared cases by the files of a folder, and refuses an empty one, even if only a network is
  to be built: then the folder holds one empty file.
"""

import copy
import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from benchmarks.bench import Bench
from benchmarks.process import run_python
from benchmarks.topology import CLASSES, Topology

Encoder: TypeAlias = Literal["plain", "residual"]

CONFIGURATION = "3d_fullres"
DATASET = "Dataset999_Bench"
IMPORTS = ("nnunetv2.training.nnUNetTrainer.nnUNetTrainer",)


def environment(folder: Path, *, workers: int | None = None) -> dict[str, str]:
    """Its paths below a folder, and the number of its augmenting processes where it is not left to it."""
    paths = {name: str(folder / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    return paths | ({} if workers is None else {"nnUNet_n_proc_DA": str(workers)})


def link_raw(bench: Bench, folder: Path) -> None:
    """Put the data where it looks for raw data."""
    raw = folder / "nnUNet_raw"
    raw.mkdir(parents=True, exist_ok=True)
    if not (raw / DATASET).exists():
        (raw / DATASET).symlink_to(bench.data, target_is_directory=True)


def prepare(*, processes: int | None = None) -> list[str]:
    """The command that extracts the fingerprint, plans and preprocesses; `processes` None: as it would by itself."""
    words = ["-m", "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints", "-d", "999", "-c", CONFIGURATION]
    return words if processes is None else [*words, "-npfp", str(processes), "-np", str(processes)]


def prepared(bench: Bench) -> Path:
    """A folder with the data preprocessed by it, made once a run."""
    folder = bench.workspace / f"nnunet-{bench.data.name}"
    if not (folder / "nnUNet_preprocessed" / DATASET / "gt_segmentations").exists():
        link_raw(bench, folder)
        run_python(prepare(processes=bench.cores), environment=environment(folder))
    return folder


def plans(topology: Topology) -> dict[str, Any]:
    """Its plans file for a topology: what its planner writes, with the numbers that are compared."""
    return {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {"0": {}},  # z-scores of the image do not ask for them
        "continue_training": False,
        "configurations": {
            CONFIGURATION: {
                "data_identifier": f"nnUNetPlans_{CONFIGURATION}",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": topology.batch,
                "patch_size": list(topology.patch),
                "spacing": [1.0, 1.0, 1.0],
                "normalization_schemes": ["ZScoreNormalization"],
                "use_mask_for_norm": [False],
                "batch_dice": False,
                **_resampling(),
                "architecture": architecture(topology),
            }
        },
    }


def architecture(topology: Topology, encoder: Encoder = "plain") -> dict[str, Any]:
    """The part of its plans file that describes the network: its default, or its presets of the residual encoder."""
    stages = len(topology.features)
    kind, blocks, up = {
        "plain": ("PlainConvUNet", {"n_conv_per_stage": [2] * stages}, 2),
        "residual": ("ResidualEncoderUNet", {"n_blocks_per_stage": topology.blocks}, 1),
    }[encoder]
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(topology.features),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": topology.kernels,
            "strides": topology.strides,
            **blocks,
            "n_conv_per_stage_decoder": [up] * (stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def network(topology: Topology, encoder: Encoder, device: str) -> torch.nn.Module:
    """Its network alone, with a head at every level of the decoder, initialised as it does."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    described = architecture(topology, encoder)
    torch.manual_seed(0)
    made: torch.nn.Module = get_network_from_plans(
        described["network_class_name"],
        described["arch_kwargs"],
        described["_kw_requires_import"],
        1,
        CLASSES,
        deep_supervision=True,
    )
    return made.to(device)


def _resampling() -> dict[str, Any]:
    """How its planner lets images, labels and logits be resampled."""
    found: dict[str, Any] = {}
    for what, labels, order in (("data", False, 3), ("seg", True, 1), ("probabilities", False, 1)):
        found[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        settings = {"is_seg": labels, "order": order, "order_z": 0, "force_separate_z": None}
        found[f"resampling_fn_{what}_kwargs"] = settings
    return found


def trainer(bench: Bench, topology: Topology, *, folder: Path | None = None, workers: int | None = None) -> Any:  # noqa: ANN401
    """Its trainer, initialised.

    Args:
        bench: Device and data.
        topology: Network, patch and batch.
        folder: Where its data is; None: nowhere, for what needs no data.
        workers: Augmenting processes; None: its own number for this machine.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    if folder is None:
        folder = bench.workspace / "nnunet-without-data"
        empty = folder / "nnUNet_preprocessed" / DATASET / f"nnUNetPlans_{CONFIGURATION}"
        empty.mkdir(parents=True, exist_ok=True)
        (empty / "none.b2nd").touch()
    os.environ.update(environment(folder, workers=workers))
    dataset = json.loads((bench.data / "dataset.json").read_text())
    made = nnUNetTrainer(copy.deepcopy(plans(topology)), CONFIGURATION, "all", dataset, torch.device(bench.device))
    torch.manual_seed(0)
    made.initialize()
    return made


def pyramid(label: Tensor, scales: list[list[float]]) -> list[Tensor]:
    """The target at each scale, as its transforms deliver it."""
    from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform

    downsample = DownsampleSegForDSTransform(ds_scales=scales)
    samples = [downsample(segmentation=one.to(torch.int16).cpu())["segmentation"] for one in label]
    return [torch.stack(level).to(label.device) for level in zip(*samples, strict=True)]


def step(bench: Bench, topology: Topology) -> Callable[[], object]:
    """Its own `train_step` on one batch that stays the same; it reads the loss back, which waits for the device."""
    made = trainer(bench, topology)
    made.set_deep_supervision_enabled(True)
    made.network.train()
    image, label = topology.inputs(bench.device)
    batch = {"data": image, "target": pyramid(label, made._get_deep_supervision_scales())}
    return lambda: made.train_step(batch)


def predictor(bench: Bench, topology: Topology, *, network: torch.nn.Module | None = None, mirror: bool = False) -> Any:  # noqa: ANN401
    """Its predictor with a network that was not trained.

    Args:
        bench: Device and data.
        topology: Network and tile.
        network: Another one than that of the topology.
        mirror: Whether to average over mirrored tiles, along all axes.
    """
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    made = trainer(bench, topology)
    made.set_deep_supervision_enabled(False)
    chosen = made.network if network is None else network
    found = nnUNetPredictor(use_mirroring=mirror, device=made.device, allow_tqdm=False)
    found.manual_initialization(
        chosen,
        made.plans_manager,
        made.configuration_manager,
        [chosen.state_dict()],
        made.dataset_json,
        "nnUNetTrainer",
        (0, 1, 2) if mirror else None,
    )
    return found


def transforms(patch: tuple[int, int, int]) -> Any:  # noqa: ANN401
    """Its training transforms for an isotropic patch, but for the target's pyramid, which is no augmentation."""
    import numpy as np
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    turn = (-30.0 / 360 * 2 * np.pi, 30.0 / 360 * 2 * np.pi)
    return nnUNetTrainer.get_training_transforms(
        np.array(patch), turn, None, (0, 1, 2), False, use_mask_for_norm=[False], foreground_labels=[1, 2]
    )


def batches(bench: Bench, topology: Topology) -> Callable[[], object]:
    """The next batch of its loader, in this process and without transforms."""
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

    made = trainer(bench, topology, folder=prepared(bench))
    cases, _ = made.get_tr_and_val_datasets()
    _, _, source, _ = made.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    loader = nnUNetDataLoader(
        cases, topology.batch, source, list(topology.patch), made.label_manager, oversample_foreground_percent=0.33
    )
    return lambda: next(loader)


def epoch(
    bench: Bench,
    topology: Topology,
    *,
    warmup: int,
    steps: int,
    workers: int | None,
    around: AbstractContextManager[object],
) -> tuple[float, float, Callable[[], object]]:
    """An epoch of its trainer with its own loaders, validation left out.

    Args:
        bench: Device and data.
        topology: Network, patch and batch.
        warmup: Steps before the clock starts, so that its loaders run and its network is compiled.
        steps: Steps of the epoch.
        workers: Augmenting processes; None: its own number for this machine.
        around: Entered when the clock starts, left when it stops.

    Returns:
        Seconds of the epoch, seconds of it spent waiting for batches, and what ends its processes.
    """
    made = trainer(bench, topology, folder=prepared(bench), workers=workers)
    made.on_train_start()
    made.on_train_epoch_start()
    for _ in range(warmup):
        made.train_step(next(made.dataloader_train))
    waited, outputs = 0.0, []
    with around:
        started = time.perf_counter()
        made.on_train_epoch_start()
        for _ in range(steps):
            asked = time.perf_counter()
            batch = next(made.dataloader_train)
            waited += time.perf_counter() - asked
            outputs.append(made.train_step(batch))
        made.on_train_epoch_end(outputs)
        seconds = time.perf_counter() - started

    def finish() -> None:
        for loader in (made.dataloader_train, made.dataloader_val):
            if hasattr(loader, "_finish"):
                loader._finish()

    return seconds, waited, finish
