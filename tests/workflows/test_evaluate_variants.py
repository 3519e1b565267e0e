"""The mirrored row: a network that looks beside itself, so that its mirror images disagree with it."""

import csv
import json
import math

import numpy as np
import pytest

from segkit.data.layouts import discover
from segkit.data.store import Store
from segkit.errors import UsageError
from segkit.evaluation import evaluate_case
from segkit.runs.files import read_json, write_json
from segkit.workflows.evaluate import run
from segkit.workflows.loading import load

THRESHOLD = 2.0
T_OF_FIVE = 2.5705818356363146
"""Student's t, five degrees of freedom, 97.5 %: from the tables."""


def config(path, **keys):
    return {"run": path, "subset": "test", "overlays": 0, "trainer": {"accelerator": "cpu"}} | keys


def rows(folder):
    with (folder / "per_case.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def counts(folder):
    return {row["case_id"]: tuple(int(row[c]) for c in ("tp", "fp", "fn")) for row in rows(folder)}


def written(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def beside(path, distances):
    """Counts where the mean of the voxels at these distances along axis 0 exceeds the threshold; zeros lie outside."""
    one, found = load(path, accelerator="cpu"), {}
    cases = {case.case_id: case for case in discover(one.config["data"]["root"]).cases}
    for case_id in one.roles.test:
        prepared = Store(one.prepared_cases).get(cases[case_id], one.plan)
        image, truth = np.pad(prepared.image[0], [(1, 1), (0, 0), (0, 0)]), np.asarray(prepared.native_label) == 1
        seen = np.mean([image[1 + d : len(image) - 1 + d] for d in distances], axis=0)
        assert seen.shape == truth.shape
        guess = seen > THRESHOLD
        found[case_id] = tuple(np.count_nonzero(m) for m in (guess & truth, guess & ~truth, ~guess & truth))
    return found


@pytest.fixture
def trained(nnunet_raw, threshold_run, tmp_path):
    """Six people to test on; flips along the first axis only, on which the network looks one voxel ahead."""
    root = nnunet_raw(cases=9, num_classes=2, shape=(14, 16, 12))
    ids = [case.case_id for case in discover(root).cases]
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": ids[:2], "tuning": ids[2:3], "test": ids[3:]}))
    words = (f"data.split.file={split}", "plan.flip_axes=[0]", "plan.patch_size=[16,16,16]")
    return threshold_run(root, THRESHOLD, *words, beside=(1, 0, 0))


def test_the_mirrored_row_stands_beside_the_plain_one(trained, capsys):
    output = trained / "evaluation" / "test"
    plain = run(config(str(trained)))
    before = written(output)
    capsys.readouterr()
    assert run(config(str(trained), mirror=True)).score == plain.score
    folder, after = output / "mirrored", written(output)
    # The plain numbers are what they are without it, to the byte.
    assert {path: content for path, content in after.items() if path.parts[0] != "mirrored"} == before
    assert counts(output) == beside(trained, [1])
    # The flipped image, seen from the other side, is the voxel on the other side; their mean decides.
    assert counts(folder) == beside(trained, [1, -1]) != counts(output)
    assert {p.name for p in folder.iterdir()} == {
        *("per_case.csv", "summary.json", "nnunet"),
        *("comparison.json", "differences.csv"),
    }
    assert (folder / "nnunet" / "summary.json").is_file()
    assert rows(folder)[0].keys() == rows(output)[0].keys()
    # As a run scores whose predictor mirrors.
    other = load(trained, accelerator="cpu", mirror=True)
    cases = {case.case_id: case for case in discover(other.config["data"]["root"]).cases}
    for case_id, found in counts(folder).items():
        prepared = Store(other.prepared_cases).get(cases[case_id], other.plan)
        (row,) = evaluate_case(other.predictor, prepared, other.settings).rows
        assert (row.tp, row.fp, row.fn) == found
    # What is said of it.
    stored = read_json(folder / "summary.json")
    assert (stored["variant"], stored["mirror_axes"], stored["label"]) == ("mirrored", [[0]], "test")
    assert (stored["settings"]["mirror_axes"], read_json(output / "summary.json")["settings"]["mirror_axes"]) == (
        [0],
        [],
    )
    differences = [float(b["dice"]) - float(a["dice"]) for a, b in zip(rows(output), rows(folder), strict=True)]
    mean, half = np.mean(differences), T_OF_FIVE * np.std(differences, ddof=1) / math.sqrt(6)
    (compared,) = read_json(folder / "comparison.json")["rows"]
    assert compared["difference"] == pytest.approx(mean, abs=1e-12)
    assert compared["interval"] == pytest.approx([mean - half, mean + half], abs=1e-9)
    dice = np.mean([float(row["dice"]) for row in rows(folder)])
    line = f"mirrored: dice {dice:.4f}, score {stored['score']:.4f}; dice {mean:+.4f} [{mean - half:+.4f}, "
    printed = capsys.readouterr().out.splitlines()
    (at,) = (number for number, text in enumerate(printed) if text.startswith(line))
    assert printed[at - 1].startswith(f"score {plain.score:.4f} = ")
    assert "mirrored 0." in printed[0]


def test_a_comparison_goes_with_the_plain_evaluation_it_was_made_with(trained):
    output = trained / "evaluation" / "test"
    run(config(str(trained), mirror=True, detail=False, save_predictions=True))
    assert len(list((output / "mirrored" / "predictions").iterdir())) == 6
    kept = (output / "mirrored" / "summary.json").read_bytes()
    run(config(str(trained), checkpoint="step-00000001", detail=False))
    assert not (output / "mirrored" / "comparison.json").exists()
    assert (output / "mirrored" / "summary.json").read_bytes() == kept
    # Seen cases are marked in every row.
    run(config(str(trained), subset="train", mirror=True, allow_seen=True, detail=False))
    marked = trained / "evaluation" / "train" / "mirrored"
    assert {row["note"] for row in rows(marked)} == {"SEEN CASES"}
    assert [read_json(marked / name)["label"] for name in ("summary.json", "comparison.json")] == ["SEEN CASES"] * 2


def test_where_nothing_was_flipped_there_is_nothing_to_mirror(trained):
    plan = read_json(trained / "plan.json")
    write_json(trained / "plan.json", plan | {"flip_axes": []})
    with pytest.raises(UsageError, match="nothing to mirror"):
        run(config(str(trained), mirror=True))
    assert not (trained / "evaluation").exists()
