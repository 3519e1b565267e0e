"""What every test starts from: fixed seeds, one thread, and tiny data sets of known content."""

import json
import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

SOURCES = Path(__file__).parents[1] / "src"


def modules_with_shapes() -> list[str]:
    """Modules of segkit that annotate shapes, with jaxtyping's types or with an alias of one."""
    texts = {file: file.read_text() for file in sorted(SOURCES.rglob("*.py"))}
    alias = re.compile(r"^(\w+)(?:: TypeAlias)? = .*\b(?:Bool|Float|Int|Num|Shaped)\[", flags=re.MULTILINE)
    names = sorted(set().union(*map(alias.findall, texts.values())))
    shapes = re.compile(rf"import jaxtyping|from jaxtyping|(: |-> |\[|\| )({'|'.join(names)})\b")
    return [".".join(file.relative_to(SOURCES).with_suffix("").parts) for file in texts if shapes.search(texts[file])]


# Annotated shapes become assertions, in those modules alone: checking the others as well, which mypy does, would make
# the imports of a test process half as long again, and each training a fifth longer.
jaxtyping.install_import_hook(modules_with_shapes(), "beartype.beartype")

# Two workers of a test run, or a DataLoader beside a test, would otherwise fight for the cores.
torch.set_num_threads(1)
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MPLBACKEND", "agg")


@pytest.fixture(autouse=True)
def fixed_seeds() -> Iterator[None]:
    """The same random numbers for every test, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (for libraries that draw from the global generator)
    torch.manual_seed(0)
    yield
    # A test that changes it must not change the next.
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of extra data sets that SEGKIT_DATA names."""
    root = os.environ.get("SEGKIT_DATA")
    if not root:
        pytest.skip("SEGKIT_DATA is not set: it names a folder with Dataset004_Hippocampus, nuclei, ...")
    if not Path(root).is_dir():
        pytest.skip(f"SEGKIT_DATA={root} is no folder")
    return Path(root)


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    """True inside a disc or ball, in voxels."""
    grid = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    return sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= radius**2


def phantom(rng: np.random.Generator, shape: tuple[int, ...], *, num_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Bright balls on a noisy ground, one a class: image float32 and label uint8, both of `shape`."""
    label = np.zeros(shape, dtype=np.uint8)
    for index in range(1, num_classes):
        centre = tuple(size * index / num_classes + rng.uniform(-1, 1) for size in shape)
        label[ball(shape, centre, min(shape) / (2 * num_classes) + 1)] = index
    image = 100.0 + 80.0 * label + rng.normal(0, 8, shape)
    return image.astype(np.float32), label


@pytest.fixture
def nnunet_raw(tmp_path: Path) -> Callable[..., Path]:
    """Factory of nnU-Net raw folders of NIfTI phantoms.

    `nnunet_raw(cases=6, shape=(20, 24, 18), spacing=(1.0, 1.0, 1.0), channels=1, num_classes=3, people=None, name=...)`
    returns the root; `people` < cases writes a groups.csv.
    """

    def make(
        *,
        cases: int = 6,
        shape: tuple[int, ...] = (20, 24, 18),
        spacing: tuple[float, ...] = (1.0, 1.0, 1.0),
        channels: int = 1,
        num_classes: int = 3,
        people: int | None = None,
        seed: int = 0,
        name: str = "Dataset900_Phantom",
    ) -> Path:
        root = tmp_path / name
        for folder in ("imagesTr", "labelsTr"):
            (root / folder).mkdir(parents=True)
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = (-10.0, -20.0, -5.0)
        identities = [f"phantom_{i:03d}" for i in range(cases)]
        for i, case in enumerate(identities):
            rng = np.random.default_rng((seed, i))
            image, label = phantom(rng, shape, num_classes=num_classes)
            for channel in range(channels):
                picture = nibabel.Nifti1Image(image * (1 + channel), affine)
                nibabel.save(picture, root / "imagesTr" / f"{case}_{channel:04d}.nii.gz")
            nibabel.save(nibabel.Nifti1Image(label, affine), root / "labelsTr" / f"{case}.nii.gz")
        names = ["background", *(f"ball_{chr(96 + k)}" for k in range(1, num_classes))]
        description = {
            "channel_names": {str(channel): f"channel{channel}" for channel in range(channels)},
            "labels": {text: index for index, text in enumerate(names)},
            "numTraining": cases,
            "file_ending": ".nii.gz",
        }
        (root / "dataset.json").write_text(json.dumps(description))
        if people is not None:
            rows = [f"{case},person_{i * people // cases:03d}" for i, case in enumerate(identities)]
            (root / "groups.csv").write_text("\n".join(["case,group", *rows]) + "\n")
        return root

    return make


@pytest.fixture
def paired_pictures(tmp_path: Path) -> Callable[..., Path]:
    """Factory of paired `images/`, `labels/` folders of PNG phantoms.

    `paired_pictures(cases=6, shape=(48, 40), mode="L" | "RGB", kind="semantic" | "mask" | "instances", name=...)`
    returns the root. "mask" writes 0 and 255; "instances" writes one id an object, another number in each picture.
    """

    def make(
        *,
        cases: int = 6,
        shape: tuple[int, int] = (48, 40),
        mode: str = "L",
        kind: str = "semantic",
        num_classes: int = 2,
        seed: int = 0,
        name: str = "pictures",
    ) -> Path:
        root = tmp_path / name
        for folder in ("images", "labels"):
            (root / folder).mkdir(parents=True)
        for i in range(cases):
            rng = np.random.default_rng((seed, i))
            image, label = phantom(rng, shape, num_classes=num_classes)
            if kind == "mask":
                label = np.where(label > 0, 255, 0).astype(np.uint8)
            if kind == "instances":
                label = _discs(shape, 1 + i % 4)
                image = (100.0 + 80.0 * (label > 0) + rng.normal(0, 8, shape)).astype(np.float32)
            grey = np.clip(image, 0, 255).astype(np.uint8)
            picture = grey if mode == "L" else np.stack([grey, 255 - grey, grey // 2], axis=-1)
            Image.fromarray(picture).save(root / "images" / f"picture_{i:03d}.png")
            Image.fromarray(label).save(root / "labels" / f"picture_{i:03d}.png")
        return root

    return make


def _discs(shape: tuple[int, int], count: int) -> np.ndarray:
    """`count` separate discs on the diagonal, ids 1..count."""
    label = np.zeros(shape, dtype=np.uint8)
    for index in range(1, count + 1):
        centre = tuple(size * index / (count + 1) for size in shape)
        label[ball(shape, centre, min(shape) / (3 * (count + 1)))] = index
    return label
