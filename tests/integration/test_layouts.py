"""Every layout from its folder to masks in the images' own form."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from segkit.configuration import compose
from segkit.workflows import evaluate, predict
from segkit.workflows.train import run


def whole_way(root: Path, tmp_path: Path, *, images: str, few: int = 3) -> list[tuple[Path, Path]]:
    """Train two tiny epochs, evaluate, predict a few images; pairs of (image, mask)."""
    words = ["debug=fast", f"data.root={root}", f"paths.runs={tmp_path / 'runs'}", "run_name=r", "trainer.threads=1"]
    config = compose("train", words)
    path = run(config).directory.path
    evaluate.run(compose("evaluate", [f"run={path}"]))
    summary = json.loads((path / "evaluation/test/summary.json").read_text())
    assert summary["n_cases"] >= 1
    assert 0 <= summary["score"] <= 1
    given = tmp_path / "given"
    given.mkdir()
    ids = json.loads((path / "split.json").read_text())["train"][:few]
    for case_id in ids:
        for file in (root / images).glob(f"{case_id}*"):
            (given / file.name).symlink_to(file)
    predict.run(compose("predict", [f"run={path}", f"input={given}", f"output={tmp_path / 'masks'}"]))
    pairs = [(next((root / images).glob(f"{i}*")), next((tmp_path / "masks").glob(f"{i}.*"))) for i in ids]
    assert len(pairs) == few
    return pairs


def assert_nifti_alike(image: Path, mask: Path, ids: set[int]) -> None:
    one, other = nibabel.load(image), nibabel.load(mask)
    assert mask.name.endswith(".nii.gz")
    np.testing.assert_array_equal(one.affine, other.affine)
    assert one.shape == other.shape
    assert one.get_data_dtype() == other.get_data_dtype()
    assert set(np.unique(np.asarray(other.dataobj)).astype(int)) <= ids


def assert_picture_alike(image: Path, mask: Path) -> np.ndarray:
    with Image.open(image) as one, Image.open(mask) as other:
        assert image.suffix == mask.suffix
        assert one.size == other.size
        values = np.asarray(other)
        # the pictures' own 8 bits where they hold every id, else the next wider integer
        assert other.mode == ("L" if values.max() < 256 else "I;16")
        return values


@pytest.mark.parametrize("channels", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_nnunet_raw_volumes(nnunet_raw, tmp_path, channels):
    root = nnunet_raw(cases=8, channels=channels, spacing=(1.0, 1.5, 2.0))
    for image, mask in whole_way(root, tmp_path, images="imagesTr"):
        assert_nifti_alike(image, mask, {0, 1, 2})


@pytest.mark.parametrize(("mode", "kind"), [("L", "instances"), ("RGB", "mask"), ("L", "semantic")])
def test_paired_pictures(paired_pictures, tmp_path, mode, kind):
    root = paired_pictures(cases=8, mode=mode, kind=kind)
    for image, mask in whole_way(root, tmp_path, images="images"):
        values = assert_picture_alike(image, mask)
        assert set(np.unique(values)) <= {"mask": {0, 255}, "semantic": {0, 1}}.get(kind, set(range(256)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Dataset004_Hippocampus", "Dataset007_MSLesions", "nuclei", "nuclei_rgb"])
def test_real_folders(real_data, tmp_path, name):
    images = "imagesTr" if name.startswith("Dataset") else "images"
    few = 1 if name == "Dataset007_MSLesions" else 3
    for image, mask in whole_way(real_data / name, tmp_path, images=images, few=few):
        if images == "imagesTr":
            assert_nifti_alike(image, mask, {0, 1, 2})
        else:
            assert_picture_alike(image, mask)
