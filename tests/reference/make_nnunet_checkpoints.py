"""Makes tests/fixtures/nnunet: checkpoints that nnU-Net 2.8.1 itself wrote, tiny, with what its networks answer.

    python tests/reference/make_nnunet_checkpoints.py      in an environment with nnU-Net (make test-reference has one)

Each is nnUNetTrainer's own: initialised, one training step on noise, its log as after an epoch, `save_checkpoint`.
Beside it lies NAME.safetensors with an image in nnU-Net's axes and the logits of the network in evaluation.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1] / "fixtures" / "nnunet"
ARCHITECTURE = "dynamic_network_architectures.architectures.unet."
BOTH = {"conv_bias": True, "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "dropout_op": None}
BOTH |= {"dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True}}
KINDS: dict[str, dict[str, Any]] = {
    "plain_3d": {"size": [4, 12, 8], "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]], "turned": [0, 1, 2]},
    "residual_3d": {"size": [4, 8, 12], "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]], "turned": [2, 0, 1]},
    "plain_2d": {"size": [16, 8], "strides": [[1, 1], [2, 1], [2, 2]], "turned": [0, 1, 2]},
    "residual_2d": {"size": [16, 8], "strides": [[1, 1], [2, 1], [2, 2]], "turned": [0, 1, 2]},
}


def architecture(kind: str, strides: list[list[int]]) -> dict[str, Any]:
    """As nnU-Net's planner writes it: kernels of 1 along the axis that is not pooled at first."""
    axes = len(strides[0])
    kernels = [[1 if step == 1 else 3 for step in strides[1]], [3] * axes, [3] * axes]
    name = {"plain": "PlainConvUNet", "residual": "ResidualEncoderUNet"}[kind]
    counts = {"plain": ("n_conv_per_stage", [2, 2, 2], [2, 2]), "residual": ("n_blocks_per_stage", [1, 2, 1], [1, 1])}
    what, encoder, decoder = counts[kind]
    return {
        "network_class_name": ARCHITECTURE + name,
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [4, 6, 6],
            "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
            "kernel_sizes": kernels,
            "strides": strides,
            what: encoder,
            "n_conv_per_stage_decoder": decoder,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
            **BOTH,
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def plans(name: str, facts: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """As much of nnU-Net's plans as its trainer reads, and the configuration."""
    axes, turned = len(facts["size"]), facts["turned"]
    configuration = "3d_fullres" if axes == 3 else "2d"
    return {
        "dataset_name": "Dataset999_Tiny",
        "plans_name": "nnUNetPlans",
        "continue_training": False,
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": turned,
        "transpose_backward": [turned.index(axis) for axis in range(3)],
        "label_manager": "LabelManager",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "configurations": {
            configuration: {
                "data_identifier": "nnUNetPlans_" + configuration,
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": facts["size"],
                "spacing": [1.0] * axes,
                "normalization_schemes": ["ZScoreNormalization"] * 2,
                "use_mask_for_norm": [False] * 2,
                "batch_dice": axes == 2,
                "architecture": architecture(name.partition("_")[0], facts["strides"]),
            }
        },
    }, configuration


def make(name: str, facts: dict[str, Any], work: Path) -> None:
    """One checkpoint, and the answer of its network."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from safetensors.torch import save_file

    torch.manual_seed(0)
    written, configuration = plans(name, facts)
    dataset = {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, "oedema": 1, "tumour": 2},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    folder = work / "preprocessed" / written["dataset_name"] / ("nnUNetPlans_" + configuration)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "case.b2nd").touch()
    trainer = nnUNetTrainer(written, configuration, 0, dataset, device=torch.device("cpu"))
    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    trainer.initialize()
    size = tuple(facts["size"])
    image = torch.randn((2, 2, *size))
    trainer.network.train()
    levels = [torch.randint(0, 3, (2, 1, *out.shape[2:])) for out in trainer.network(image)]
    result = trainer.train_step({"data": image, "target": levels})
    # What an epoch leaves in the log: numbers of numpy, which the checkpoint pickles.
    trainer.on_train_epoch_start()
    trainer.on_train_epoch_end([result])
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        trainer.on_validation_epoch_end([trainer.validation_step({"data": image, "target": levels})])
    trainer._best_ema = trainer.logger.get_value("ema_fg_dice", step=-1)
    trainer.save_checkpoint(str(HERE / f"{name}.pth"))
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    with torch.no_grad():
        logits = trainer.network(image[:1])
    save_file({"image": image[:1].contiguous(), "logits": logits.contiguous()}, HERE / f"{name}.safetensors")


def main() -> int:
    """All of them."""
    with tempfile.TemporaryDirectory() as work:
        for place in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{place}"] = f"{work}/{place}"
            Path(work, place).mkdir()
        HERE.mkdir(parents=True, exist_ok=True)
        for name, facts in KINDS.items():
            make(name, facts, Path(work))
    return 0


if __name__ == "__main__":
    sys.exit(main())
