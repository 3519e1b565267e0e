"""A run that begins with the weights of a file: what it trains from, what it writes down, and whom it has seen."""

import json
from pathlib import Path

import pytest
import torch

from segkit.data.splits import Roles
from segkit.errors import DataError, UsageError
from segkit.runs.checkpoints import read_checkpoint
from segkit.runs.directory import RunDirectory
from segkit.runs.index import last, load_index
from segkit.runs.manifest import checkpoint_path
from segkit.weights.source import Source
from segkit.workflows.initial_weights import InitialWeights, initial_weights, place_of_weights
from segkit.workflows.loading import load
from segkit.workflows.provenance import Model, seen_by
from segkit.workflows.stored import stored_ancestors
from segkit.workflows.train import run as train


def weights_of(path):
    folder = path / "checkpoints"
    return read_checkpoint(checkpoint_path(folder, last(load_index(folder)).step)).model


def test_a_run_begins_with_the_weights_of_another_and_goes_on_without_them(run_config, tmp_path, capsys):
    """With next to no rate what was loaded is what is kept; the second life does not need the file."""
    first = train(run_config("first", "trainer.max_epochs=1"))
    assert first is not None
    words = ("trainer.max_epochs=1", "optimizer.lr=1e-30", "seed=7")
    second = train(run_config("second", *words, "weights=first", "weights_match=strict"))
    assert second is not None
    expected, found = weights_of(first.directory.path), weights_of(second.directory.path)
    assert expected.keys() == found.keys()
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)
    printed = capsys.readouterr().out
    assert f"{len(expected)} loaded tensors of" in printed
    rows = second.directory.weights.read_text().splitlines()[4:]
    assert sorted(row.split() for row in rows) == sorted(["loaded", name.removeprefix("network.")] for name in expected)

    roles = first.roles
    first.directory.path.rename(tmp_path / "gone")
    again = train(run_config("second", *words, "weights=first", "weights_match=strict", "extra_epochs=1"))
    assert again is not None
    seen = again.provenance.ancestors
    assert [model.name for model in seen] == ["first"]
    assert seen[0].roles == roles


def test_a_wrong_path_is_named_before_anything_is_done(run_config, tmp_path):
    config = run_config("a", f"weights={tmp_path / 'none.pth'}")
    with pytest.raises(UsageError, match="does not exist"):
        train(config)
    assert not (tmp_path / "runs/a/plan.json").exists()
    (tmp_path / "text.pth").write_text("import os")
    with pytest.raises(DataError, match="cannot be read"):
        train(run_config("b", f"weights={tmp_path / 'text.pth'}"))


def test_weights_of_a_run_bring_its_cases_along(nnunet_raw, threshold_run):
    path = threshold_run(nnunet_raw(cases=6, num_classes=2), 1.3)
    given = initial_weights({"weights": str(path)})
    assert given is not None
    assert given.source.channels == load(path).plan.channels
    roles = load(path).roles
    assert [(model.name, model.roles) for model in given.ancestors] == [("run", roles)]
    child = RunDirectory(path.parent / "child").create()
    child.ancestors.write_text(json.dumps({"runs": [{"name": "run", "roles": roles.to_json()}]}))
    case = roles.train[0]
    model = Model("child", Roles((), (), (case,)), stored_ancestors(child))
    (sighting,) = seen_by([model], {case: roles.content_hashes[case]})
    assert (sighting.model, sighting.role, sighting.case_id) == ("run", "train", case)
    assert seen_by([model], {"new": "another content"}) == ()


def test_warnings_name_the_cases_that_the_weights_have_seen():
    before = Roles(("a", "b"), ("c",), (), content_hashes={"a": "1", "b": "2", "c": "3"})
    now = Roles(("x",), ("y", "z"), ("b", "d"), content_hashes={"x": "1", "y": "2", "z": "3"})
    path, source = Path("old"), Source({}, "segkit", "a run")
    lines = InitialWeights(path, source, (Model("old", before),)).warnings(now)
    assert len(lines) == 2
    assert lines[0].startswith("y: old was trained on them")
    assert lines[1].startswith("b: test cases named like cases that old has seen")
    assert InitialWeights(path, source).warnings(now) == []


def test_a_name_is_a_run_where_there_is_no_such_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/one").mkdir(parents=True)
    assert place_of_weights("one", tmp_path / "runs") == tmp_path / "runs/one"
    (tmp_path / "one").mkdir()
    assert place_of_weights("one", tmp_path / "runs") == tmp_path / "one"
    assert place_of_weights("gone", tmp_path / "runs") == tmp_path / "runs/gone"
    assert place_of_weights("gone.pth", tmp_path / "runs") == tmp_path / "gone.pth"
    assert place_of_weights("some/gone", tmp_path / "runs") == tmp_path / "some/gone"
    (tmp_path / "runs/sweep/0").mkdir(parents=True)
    assert place_of_weights("sweep/0", tmp_path / "runs") == tmp_path / "runs/sweep/0"
