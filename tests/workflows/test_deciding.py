"""Decided once: a resume reads plan and roles, and only what changes no weight and no sample follows the new keys."""

from segkit.planning.device import device_facts
from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json
from segkit.workflows.deciding import decide

__all__ = ["run_config"]

from tests.runs_of_phantoms import run_config


def test_a_plan_is_made_once_and_follows_two_keys(run_config, tmp_path, monkeypatch) -> None:
    directory, device = RunDirectory(tmp_path / "run").create(), device_facts("cpu")
    config = run_config("run")
    _, plan = decide(config, directory, device)
    assert read_json(directory.plan) == plan.to_json()
    monkeypatch.setattr("segkit.workflows.deciding.plan_dataset", None)  # would be called for another plan
    assert decide(config, directory, device)[1] == plan
    other = {**config, "validation": {**config["validation"], "every_n_epochs": 7, "tile_batch": 3}}
    _, changed = decide(other, directory, device)
    assert (changed.validation_every_n_epochs, changed.tile_batch) == (7, 3)
    different = {key for key, value in changed.to_json().items() if value != plan.to_json()[key]}
    assert different == {"validation_every_n_epochs", "tile_batch", "reasons"}
    assert read_json(directory.plan) == changed.to_json()
    unset = {**config, "validation": {**config["validation"], "every_n_epochs": None, "tile_batch": None}}
    assert decide(unset, directory, device)[1] == changed  # null leaves what was decided


def test_what_the_check_has_found_is_kept_for_the_report(run_config, tmp_path) -> None:
    directory = RunDirectory(tmp_path / "run").create()
    opened, _ = decide(run_config("run"), directory, device_facts("cpu"))
    stored = read_json(directory.findings)["findings"]
    assert stored == [finding.to_json() for finding in opened.findings]
    assert "no groups are given" in {one["what"] for one in stored}
