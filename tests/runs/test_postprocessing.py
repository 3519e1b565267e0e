"""Rules are those of certain models, and of no others; a file that is not ours is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from segkit.errors import StorageError, UsageError
from segkit.inference.postprocessing import ClassRule, PostProcessing
from segkit.runs.postprocessing import FILE, read_postprocessing

A = {"run": "a", "checkpoint": 100, "step": 0.5, "mirror_axes": []}
B = {"run": "b", "checkpoint": 200, "step": 0.5, "mirror_axes": []}
RULES = PostProcessing((ClassRule("organ", 12.0, "largest"),))
CASES = [{"case_id": "anna", "group": "anna", "content_hash": "1f"}, {"case_id": "ben", "content_hash": "2e"}]


def stored(folder: Path, **changes: Any) -> Path:
    content = {"postprocessing": RULES.to_json(), "models": [A, B], "fitting_cases": CASES} | changes
    (folder / FILE).write_text(json.dumps(content))
    return folder


def test_it_comes_back_by_folder_or_by_file(tmp_path: Path) -> None:
    stored(tmp_path)
    for place in (tmp_path, tmp_path / FILE):
        found = read_postprocessing(place)
        assert found.rules == RULES
        assert found.path == tmp_path / FILE
        found.require_models([B, A])


def test_other_models_are_refused_and_both_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="other models") as raised:
        read_postprocessing(stored(tmp_path)).require_models([A, B | {"checkpoint": 300}])
    assert "b at step 200" in raised.value.why
    assert "b at step 300" in raised.value.why
    assert "postprocess=none" in raised.value.mend
    assert "subset=tuning postprocess=fit" in raised.value.mend


def test_the_way_of_predicting_is_part_of_what_rules_are_for(tmp_path: Path) -> None:
    found = read_postprocessing(stored(tmp_path, average="probabilities"))
    mirrored = [A, B | {"mirror_axes": [0]}]
    found.require_models(mirrored)
    assert found.settings([B, A], "probabilities") == ""
    assert found.settings([B, A], "logits") == "average=probabilities"
    assert found.settings(mirrored, "logits") == "mirror=false average=probabilities"


def test_a_file_of_the_first_versions_is_of_logits(tmp_path: Path) -> None:
    found = read_postprocessing(stored(tmp_path))
    assert found.settings([A, B], "logits") == ""
    assert found.settings([A, B], "probabilities") == "average=logits"


def test_the_cases_that_chose_the_rules_are_known_by_content(tmp_path: Path) -> None:
    found = read_postprocessing(stored(tmp_path))
    assert found.fitted_on({"renamed": "2e", "carl": "3d", "anna": "1f"}) == ["anna", "renamed"]
    assert found.fitted_on({"anna": "4c"}) == []


def test_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="postprocess=fit"):
        read_postprocessing(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"postprocessing": None}, {"postprocessing": "largest"}, {"postprocessing": RULES.to_json() | {"order": []}},
        {"average": "median"}, {"average": None},
        {"models": None}, {"models": ["a"]}, {"fitting_cases": None}, {"fitting_cases": [{"case_id": "anna"}]},
        {"fitting_cases": [{"case_id": "anna", "content_hash": ["1f"]}]},
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(StorageError, match="cannot be understood"):
        read_postprocessing(stored(tmp_path, **changes))


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"postprocessing": {')
    with pytest.raises(StorageError, match="cannot be understood"):
        read_postprocessing(tmp_path)
