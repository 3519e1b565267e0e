"""A training image under the name of a test case is found out by its content."""

import json
import shutil
from pathlib import Path

import pytest

from segkit.configuration import compose
from segkit.data.layouts import discover
from segkit.errors import DataError
from segkit.workflows import evaluate
from segkit.workflows.train import run


@pytest.mark.parametrize("role", ["train", "tuning"])
def test_evaluate_refuses_a_copy_of_a_seen_image(run_config, role):
    config = run_config("copied", "trainer.max_epochs=1")
    path = run(config).directory.path
    roles = json.loads((path / "split.json").read_text())
    cases = {case.case_id: case for case in discover(Path(config["data"]["root"])).cases}
    seen, tested = cases[roles[role][0]], cases[roles["test"][0]]
    shutil.copy(seen.images[0], tested.images[0])
    shutil.copy(seen.label, tested.label)
    with pytest.raises(DataError, match=f"{tested.case_id} \\({role} of copied, as {seen.case_id}\\)") as refused:
        evaluate.run(compose("evaluate", [f"run={path}", "overlays=0"]))
    assert refused.value.exit_code == 65
    assert not (path / "evaluation").exists()
