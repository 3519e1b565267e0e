"""The contact sheet that `predict` leaves beside its masks: of all of them, drawn once."""

import re

import nibabel
import numpy as np
import pytest

from segkit.errors import DataError
from segkit.workflows import contact_sheet as sheets
from segkit.workflows.predict import run


@pytest.fixture
def predicted(nnunet_raw, threshold_run, tmp_path):
    """Factory: `predicted(numbers)` predicts these phantoms into one folder, and returns its page as text."""
    root = nnunet_raw(cases=6, num_classes=2, spacing=(0.5, 1.0, 2.0))
    path, source, output = threshold_run(root, 1.3), tmp_path / "new", tmp_path / "masks"
    source.mkdir()

    def predict(*numbers, **keys):
        for k in numbers:
            name = f"phantom_{k:03d}_0000.nii.gz"
            (source / name).write_bytes((root / "imagesTr" / name).read_bytes())
        config = {"run": str(path), "input": str(source), "output": str(output), "contact_sheet": True}
        run(config | {"trainer": {"accelerator": "cpu"}} | keys)
        return (output / "contact_sheet.html").read_text()

    predict.output, predict.source = output, source
    return predict


def names(text):
    return re.findall(r"<figcaption><b>(.*?)</b>", text)


def test_every_mask_is_on_the_page_with_the_volume_that_its_file_has(predicted, capsys):
    text = predicted(0, 1)
    assert names(text) == ["phantom_000", "phantom_001"]
    for name in names(text):
        mask = nibabel.load(predicted.output / f"{name}.nii.gz")
        volume = np.count_nonzero(mask.dataobj) * 0.5 * 1.0 * 2.0 / 1000
        assert re.search(rf"{name}</b>.*?ball_a {volume:#.3g} mL", text)
    assert str(predicted.output / "contact_sheet.html") in capsys.readouterr().out


def test_masks_that_are_kept_stay_on_the_page_and_are_not_drawn_again(predicted, monkeypatch):
    predicted(0)
    drawn = []
    draw = sheets.draw_tile
    monkeypatch.setattr(sheets, "draw_tile", lambda *a, **keys: drawn.append(keys["case_id"]) or draw(*a, **keys))
    assert names(predicted(1)) == ["phantom_000", "phantom_001"]
    assert drawn == ["phantom_001"]
    for tile in (predicted.output / "contact_sheet").iterdir():
        tile.unlink()
    before = (predicted.output / "contact_sheet.html").read_text()
    assert predicted() == before  # from the files, as while they were predicted
    (predicted.output / "phantom_000.nii.gz").unlink()
    (predicted.source / "phantom_000_0000.nii.gz").unlink()
    assert names(predicted()) == ["phantom_001"]


def test_what_could_not_be_predicted_is_said(predicted):
    broken = predicted.source / "broken_0000.nii.gz"
    broken.write_bytes(b"\x1f\x8b broken")
    with pytest.raises(DataError):
        predicted(0)
    text = (predicted.output / "contact_sheet.html").read_text()
    assert names(text) == ["phantom_000"]
    assert "Not predicted: broken" in text


def test_of_very_many_some_are_drawn_and_that_is_said(predicted, monkeypatch):
    monkeypatch.setattr(sheets, "_MOST", 2)
    text = predicted(0, 1, 2)
    assert names(text) == ["phantom_000", "phantom_002"]
    assert "One of 2 masks is drawn, 2 of 3." in text


def test_it_is_left_out_on_request(predicted):
    with pytest.raises(FileNotFoundError):
        predicted(0, contact_sheet=False)
    assert (predicted.output / "phantom_000.nii.gz").exists()


def test_a_damaged_tile_is_drawn_again(predicted):
    before = predicted(0, 1)
    (predicted.output / "contact_sheet" / "phantom_000.nii.gz.json").write_text("{")
    assert predicted() == before


def test_a_page_of_masks_that_are_replaced_goes(predicted):
    predicted(0, 1)
    (predicted.source / "phantom_000_0000.nii.gz").unlink()
    assert names(predicted(overwrite=True)) == ["phantom_001"]
    with pytest.raises(FileNotFoundError):
        predicted(2, contact_sheet=False)
    assert not (predicted.output / "contact_sheet").exists()
