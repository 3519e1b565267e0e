import json

import numpy as np
import pytest
from PIL import Image

from segkit.errors import DataError
from segkit.workflows.check import run


def _config(root, **settings):
    data = {"root": root and str(root), "layout": "auto", "groups": None, "labels": "auto", "ignore_label": None}
    return {"data": data, **settings}


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for folder, high in (("images", 255), ("labels", 1)):
        (tmp_path / folder).mkdir()
        for k in range(4):
            pixels = rng.integers(0, high, (8, 9), endpoint=True).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{k}.png")
    return tmp_path


def test_good_data_is_reported_and_returned(root, capsys):
    findings = run(_config(root))
    assert [finding.what for finding in findings] == ["no groups are given"]
    out = capsys.readouterr().out
    assert "4 cases, no groups, layout paired" in out
    assert out.endswith("0 errors, 0 warnings, 1 note\n")


def test_without_a_root_the_sample_data_is_checked(capsys):
    assert run(_config(None)) == []
    assert "40 cases, 40 people" in capsys.readouterr().out


def test_errors_are_printed_and_then_stop_with_65(root, capsys):
    (root / "labels/1.png").unlink()
    (root / "images/2.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(DataError, match="2 errors") as caught:
        run(_config(root))
    assert caught.value.exit_code == 65
    out = capsys.readouterr().out
    assert "1.png" in out
    assert "2.png" in out
    assert "2 errors, 0 warnings, 1 note" in out


def test_json_is_all_that_is_printed(root, capsys):
    findings = run(_config(root, json=True))
    assert json.loads(capsys.readouterr().out) == [finding.to_json() for finding in findings]


def test_a_bad_declaration_is_a_finding(root, capsys):
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "a": 1, "b": 1}}))
    with pytest.raises(DataError):
        run(_config(root))
    assert "two classes have one value" in capsys.readouterr().out


def test_an_empty_folder_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="empty folder"):
        run(_config(tmp_path))
