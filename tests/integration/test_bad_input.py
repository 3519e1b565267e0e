"""Bad input ends with a message that names it and the right exit code, and leaves nothing half-written."""

import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from segkit.configuration import main
from segkit.runs.directory import RunDirectory


@pytest.fixture
def train(tmp_path: Path, capsys):
    """`train(root)` from its command line: (exit code, what stands on stderr)."""

    def call(root: Path, *overrides: str) -> tuple[int, str]:
        code = main(
            "train", ["debug=fast", f"data.root={root}", f"paths.runs={tmp_path / 'runs'}", "run_name=r", *overrides]
        )
        return int(code), capsys.readouterr().err

    return call


def _change(path: Path, change) -> None:
    image = nibabel.load(path)
    array = change(np.asarray(image.dataobj))
    nibabel.save(nibabel.Nifti1Image(array, image.affine), path)


def _first(root: Path, folder: str) -> Path:
    return sorted((root / folder).glob("*.nii.gz"))[0]


def test_empty_folder(train, tmp_path):
    (tmp_path / "empty").mkdir()
    code, err = train(tmp_path / "empty")
    assert code == 65
    assert "empty" in err
    assert "mend" in err


def test_missing_folder(train, tmp_path):
    code, err = train(tmp_path / "nowhere")
    assert code == 65
    assert "nowhere" in err


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(lambda root: _first(root, "labelsTr").unlink(), ("phantom_000", "no label"), id="no label"),
        pytest.param(
            lambda root: _change(_first(root, "labelsTr"), lambda a: np.where(a == 2, 7, a).astype(np.uint8)),
            ("phantom_000", "7"),
            id="undeclared label value",
        ),
        pytest.param(
            lambda root: _change(_first(root, "labelsTr"), lambda a: a[:-1]), ("phantom_000",), id="shape mismatch"
        ),
        pytest.param(
            lambda root: _first(root, "imagesTr").write_bytes(_first(root, "imagesTr").read_bytes()[:2000]),
            ("phantom_000",),
            id="truncated",
        ),
        pytest.param(
            lambda root: _change(_first(root, "imagesTr"), lambda a: np.where(a > 250, np.nan, a)),
            ("phantom_000", "NaN"),
            id="NaN voxels",
        ),
    ],
)
def test_a_spoiled_case_is_named(train, nnunet_raw, tmp_path, spoil, words):
    # the first case alone may have been dealt to the test part: an error there is told by `check`, not by `train`
    root = nnunet_raw(cases=8)
    spoil(root)
    code = int(main("check", [f"data.root={root}"]))
    assert code == 65
    code, err = train(root, "data.split.fold=0")
    if code == 0:
        code, err = train(root, "data.split.fold=1", "run_name=other")
    assert code == 65
    for word in words:
        assert word in err
    assert "mend" in err
    assert not list((tmp_path / "runs").glob("*/checkpoints/step-*"))


def test_a_data_set_without_foreground_ends_before_training(train, nnunet_raw, tmp_path):
    root = nnunet_raw(cases=6)
    for path in (root / "labelsTr").glob("*.nii.gz"):
        _change(path, np.zeros_like)
    code, err = train(root)
    assert code == 65
    assert "no foreground in any case" in err
    assert not list((tmp_path / "runs").glob("*/checkpoints/step-*"))


def test_two_people_are_too_few(train, nnunet_raw):
    code, err = train(nnunet_raw(cases=6, people=2))
    assert code == 65
    assert "people" in err


def test_a_run_that_another_process_holds(train, nnunet_raw, tmp_path):
    run = RunDirectory(tmp_path / "runs" / "r").create()
    holder = (
        "import sys; from pathlib import Path; from segkit.runs.directory import RunDirectory\n"
        f"with RunDirectory(Path({str(run.path)!r})).lock():\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        code, err = train(nnunet_raw(cases=6))
        process.stdin.close()
    assert code == 73
    assert str(process.pid) in err
    assert not run.config.exists()
