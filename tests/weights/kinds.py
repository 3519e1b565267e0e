"""Checkpoints in tests/fixtures/nnunet, made by tests/reference/make_nnunet_checkpoints.py, and networks for them."""

from pathlib import Path

import yaml

from segkit.networks.residual_unet import ResidualUNet
from segkit.networks.unet import UNet

FOLDER = Path(__file__).parents[1] / "fixtures" / "nnunet"
NAMES = ("plain_3d", "residual_3d", "plain_2d", "residual_2d")
NETWORKS = {"unet": UNet, "residual_unet": ResidualUNet}
CHANNELS, CLASSES = ("T1", "FLAIR"), ("background", "oedema", "tumour")


def network_of(source, *, channels=2, classes=3, **changes):
    """The network that the overrides of a file describe, drawn anew."""
    words = dict(word.split("=", 1) for word in source.overrides)
    kind = NETWORKS[words.pop("network")]
    settings = {key.removeprefix("plan."): yaml.safe_load(value) for key, value in words.items()}
    settings |= {"dimensions": len(settings["strides"][0]), "supervised_levels": 1, **changes}
    return kind(channels, classes, **settings)
