"""A data set of large images, where the patch is larger than any that the samples have."""

import importlib
import json
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.bench import Bench

CASES = 8
SIDE = 160


def make_phantoms(bench: Bench) -> Bench:
    """The same bench on images of 160^3 voxels: noise with a bright ball in a ball, in nnU-Net's raw layout.

    Made once a run; a function of nothing but the numbers above.
    """
    root = bench.workspace / "Dataset998_Phantoms"
    if not (root / "dataset.json").exists():
        nibabel: Any = importlib.import_module("nibabel")
        for folder in ("imagesTr", "labelsTr"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(CASES):
            image, label = phantom(number)
            name = f"ball_{number:03d}"
            nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), root / "imagesTr" / f"{name}_0000.nii.gz")
            nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), root / "labelsTr" / f"{name}.nii.gz")
        record = {
            "channel_names": {"0": "MRI"},
            "labels": {"background": 0, "shell": 1, "core": 2},
            "numTraining": CASES,
            "file_ending": ".nii.gz",
        }
        (root / "dataset.json").write_text(json.dumps(record))
    return replace(bench, data=root, sample=False)


def phantom(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Image float32 and label uint8 of one case, (160, 160, 160); a function of its number."""
    random = np.random.default_rng(number)
    centre = random.uniform(0.35, 0.65, size=3) * SIDE
    axes = np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij", sparse=True)
    distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)))
    label = (distance < 40).astype(np.uint8) + (distance < 20).astype(np.uint8)
    image = (label + random.normal(0.0, 0.5, size=label.shape)).astype(np.float32)
    return image, label
