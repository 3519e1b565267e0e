"""A run whose data set changed between two lives is recognised: by name, before anything is trained or written."""

import builtins
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from segkit.data.splits import Roles
from segkit.errors import DataError, UsageError
from segkit.workflows import train

ONE_EPOCH = ("trainer.max_epochs=1", "trainer.steps_per_epoch=1", "data.max_cases=null")
TWO_EPOCHS = ("trainer.max_epochs=2", "trainer.steps_per_epoch=1", "data.max_cases=null")


_template: list[Path] = []


@pytest.fixture
def begun(
    run_config: Callable[..., dict[str, Any]], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Roles]:
    """A run after one epoch: its folder, the folder of its data set, its roles. Trained once, copied for each test."""
    config = run_config("r", *ONE_EPOCH)
    root, run = Path(config["data"]["root"]), tmp_path / "runs" / "r"
    if not _template:
        train.run(config)
        kept = tmp_path_factory.mktemp("begun")
        _template.extend([kept, tmp_path])
        shutil.copytree(root, kept / "data")
        shutil.copytree(run, kept / "run")
    else:
        kept, first = _template
        shutil.rmtree(root)
        shutil.copytree(kept / "data", root)
        shutil.copytree(kept / "run", run)
        path = run / "config.yaml"
        path.write_text(path.read_text().replace(str(first), str(tmp_path)))
    return run, root, Roles.from_json(json.loads((run / "split.json").read_text()))


def _image(root: Path, case_id: str) -> Path:
    return root / "imagesTr" / f"{case_id}_0000.nii.gz"


def _label(root: Path, case_id: str) -> Path:
    return root / "labelsTr" / f"{case_id}.nii.gz"


def _replace(path: Path) -> None:
    image = nibabel.load(path)
    array = np.asarray(image.dataobj).copy()
    array[0, 0, 0] += 1
    nibabel.save(nibabel.Nifti1Image(array, image.affine), path)


def test_what_was_replaced_or_removed_is_told_all_at_once(begun, run_config) -> None:
    run, root, roles = begun
    gone, drawn, relabelled, tuning = *roles.train[:3], roles.tuning[0]
    _image(root, gone).unlink()
    _label(root, gone).unlink()
    _replace(_image(root, drawn))
    _replace(_label(root, relabelled))
    _replace(_image(root, tuning))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "log.txt"}
    with pytest.raises(UsageError) as caught:
        train.run(run_config("r", *TWO_EPOCHS))
    assert caught.value.exit_code == 2
    assert caught.value.where == str(root)
    assert caught.value.why == f"removed: {gone}; image replaced: {drawn}, {tuning}; label replaced: {relabelled}"
    assert "another run_name" in caught.value.mend
    assert {path: path.read_bytes() for path in before} == before


def test_put_back_as_it_was_the_run_goes_on(begun, run_config, tmp_path) -> None:
    _, root, roles = begun
    path = _image(root, roles.train[0])
    shutil.copy(path, tmp_path / "kept.nii.gz")
    _replace(path)
    with pytest.raises(UsageError, match="image replaced"):
        train.run(run_config("r", *TWO_EPOCHS))
    shutil.copy(tmp_path / "kept.nii.gz", path)  # other times, same content
    trained = train.run(run_config("r", *TWO_EPOCHS))
    assert trained is not None
    assert trained.selection.entry.epoch == 2


def test_added_cases_have_no_role_and_are_named(begun, run_config, capsys) -> None:
    run, root, roles = begun
    shutil.copy(_image(root, roles.train[0]), _image(root, "newcomer"))
    shutil.copy(_label(root, roles.train[0]), _label(root, "newcomer"))
    train.run(run_config("r", *TWO_EPOCHS))
    out = capsys.readouterr().out
    assert "cases were added since this run began" in out
    assert "newcomer" in out
    now = Roles.from_json(json.loads((run / "split.json").read_text()))
    assert now == roles


def test_test_cases_may_go_and_stay_closed(begun, run_config, capsys, monkeypatch) -> None:
    _, root, roles = begun
    gone, *others = roles.test
    _image(root, gone).unlink()
    _label(root, gone).unlink()
    for case_id in others:  # whoever opened one of these would see that it is no image any more
        _image(root, case_id).write_bytes(b"closed")
    opened: list[str] = []
    real = builtins.open
    monkeypatch.setattr(builtins, "open", lambda file, *a, **k: (opened.append(str(file)), real(file, *a, **k))[1])
    train.run(run_config("r", *TWO_EPOCHS))
    assert "test cases of this run are gone" in capsys.readouterr().out
    assert not [path for path in opened if any(case_id in path for case_id in roles.test) and "imagesTr" in path]


def test_a_person_who_now_has_two_roles_is_refused(begun, run_config) -> None:
    """data.groups is the same key; the table beside the data was written only after the run began."""
    _, root, roles = begun
    ids = [*roles.train, *roles.tuning, *roles.test]
    same = {roles.train[0]: "one", roles.tuning[0]: "one"}
    rows = [f"{case_id},{same.get(case_id, case_id)}" for case_id in ids]
    (root / "groups.csv").write_text("\n".join(["case,group", *rows]) + "\n")
    with pytest.raises(DataError, match="one person is in two roles"):
        train.run(run_config("r", *TWO_EPOCHS))


def test_a_run_from_before_labels_had_hashes_is_taken_as_it_is(begun, run_config) -> None:
    run, _, roles = begun
    split = json.loads((run / "split.json").read_text())
    del split["label_hashes"]
    (run / "split.json").write_text(json.dumps(split))
    trained = train.run(run_config("r", *TWO_EPOCHS))
    assert trained is not None
    assert Roles.from_json(json.loads((run / "split.json").read_text())) == roles
