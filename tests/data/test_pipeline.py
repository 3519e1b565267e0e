"""From configuration to prepared cases; the test files stay closed."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from segkit.data.pipeline import (
    fingerprint_dataset,
    loader_workers,
    open_dataset,
    plan_dataset,
    preparation_workers,
    prepare_dataset,
)
from segkit.data.preprocessing import content_hash_of
from segkit.errors import DataError, UsageError
from segkit.planning.device import DeviceFacts

CPU = DeviceFacts("cpu", "a laptop", 8 * 2**30, 2, native_bf16=False)

_opened: list[str] = []
_listening = False


def _listen(event, arguments):
    if _listening and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        _opened.append(os.fspath(arguments[0]))


@pytest.fixture
def opened_files():
    """Paths that Python opened during the test (an audit hook; it cannot be taken out again, only silenced)."""
    global _listening
    if not hasattr(sys, "_segkit_listens"):
        sys.addaudithook(_listen)
        sys._segkit_listens = True
    _opened.clear()
    _listening = True
    yield _opened
    _listening = False


def run_all(config, device=CPU):
    opened = open_dataset(config)
    plan = plan_dataset(opened, config, device)
    return opened, plan, prepare_dataset(opened, plan)


@pytest.mark.parametrize("kind", ["nnunet", "pictures"])
def test_every_step_and_the_test_files_are_never_opened(kind, nnunet_raw, paired_pictures, config, opened_files):
    root = nnunet_raw(cases=9, people=9) if kind == "nnunet" else paired_pictures(cases=9, kind="instances")
    opened_files.clear()  # what the phantoms' own writing opened
    opened, plan, prepared = run_all(config(root))
    test_files = {str(path) for case in opened.cases("test") for path in (*case.images, case.label)}
    assert len(test_files) >= 2
    names = {os.fsdecode(path) for path in opened_files}
    assert not names & test_files
    seen_files = {str(path) for case in opened.seen for path in (*case.images, case.label)}
    assert seen_files <= names
    assert [entry.case_id for entry in prepared.train] == list(opened.roles.train)
    assert [entry.case_id for entry in prepared.tuning] == list(opened.roles.tuning)
    assert plan.name == "tiny"


def test_garbage_in_the_test_cases_changes_nothing(nnunet_raw, config):
    root = nnunet_raw(cases=9)
    first, plan, prepared = run_all(config(root))
    for case in first.cases("test"):
        for path in (*case.images, case.label):
            path.write_bytes(b"garbage")
    fresh = config(root)
    fresh["paths"]["cache"] += "_fresh"
    second, again, prepared_again = run_all(fresh)
    assert fingerprint_dataset(second) == fingerprint_dataset(first)
    assert again == plan
    for a, b in zip(prepared.train + prepared.tuning, prepared_again.train + prepared_again.tuning, strict=True):
        assert np.array_equal(a.array("image"), b.array("image"))


def test_who_is_held_out_is_in_nothing_before_evaluate(nnunet_raw, config, opened_files):
    """Neither opened nor planned with: garbage in their files, or more folds, move nothing."""
    root, made = nnunet_raw(cases=9), {}
    for held_out in (2, 0):
        made[held_out] = config(root)
        made[held_out]["data"]["split"]["held_out"] = held_out
    assert open_dataset(made[0]).people.keys() == {"train", "tuning", "test"}
    held = open_dataset(made[2])
    apart = held.cases("held_out")
    assert held.people["held_out"] == (2, 2)
    assert {case.case_id for case in apart} <= {case.case_id for case in open_dataset(made[0]).dataset.cases}
    for case in apart:
        for path in (*case.images, case.label):
            path.write_bytes(b"garbage")
    made[2]["paths"]["cache"] += "_fresh"
    opened_files.clear()
    opened, _, prepared = run_all(made[2])
    assert not {str(path) for case in apart for path in (*case.images, case.label)} & {
        os.fsdecode(path) for path in opened_files
    }
    entries = {entry.case_id for entry in (*prepared.train, *prepared.tuning)}
    assert entries == set(opened.roles.train) | set(opened.roles.tuning)
    assert not set(prepared.roles.content_hashes) & set(opened.roles.held_out)
    assert prepared.roles.held_out == tuple(case.case_id for case in apart)


def test_a_resumed_run_knows_whom_it_held_out(nnunet_raw, config):
    """They are no cases that were added since; one that is gone is told, not refused."""
    root, made = nnunet_raw(cases=9), None
    made = config(root)
    made["data"]["split"]["held_out"] = 2
    roles = open_dataset(made).roles
    assert [finding for finding in open_dataset(made, roles=roles).findings if finding.level == "warning"] == []
    for path in root.rglob(f"{roles.held_out[0]}*.nii.gz"):
        path.unlink()
    again = open_dataset(made, roles=roles)
    (told,) = [finding for finding in again.findings if finding.level == "warning"]
    assert "held-out cases of this run are gone" in str(told)
    assert roles.held_out[0] in str(told)
    assert [case.case_id for case in again.cases("held_out")] == [roles.held_out[1]]


def test_no_person_in_two_roles_and_hashes_of_the_seen(nnunet_raw, config):
    root = nnunet_raw(cases=14, people=7)
    opened, _, prepared = run_all(config(root))
    groups = {role: {case.group for case in opened.cases(role)} for role in ("train", "tuning", "test")}
    assert all(groups.values())
    assert sum(len(g) for g in groups.values()) == 7
    assert opened.people["test"][1] == len(groups["test"])
    assert set(prepared.roles.content_hashes) == {case.case_id for case in opened.seen}
    one = opened.seen[0]
    assert prepared.roles.content_hashes[one.case_id] == content_hash_of(one.images)


def declare(root, annotated):
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotated": annotated}))


def keep_the_first_class(path):
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image((np.asarray(image.dataobj) == 1).astype(np.uint8), image.affine), path)


def test_other_annotated_classes_are_other_data(nnunet_raw, config):
    root = nnunet_raw(cases=6)
    case_id = open_dataset(config(root)).roles.train[0]
    keep_the_first_class(root / "labelsTr" / f"{case_id}.nii.gz")
    declare(root, {case_id: ["ball_a"]})
    _, _, prepared = run_all(config(root))
    assert prepared.annotated.count(None) == len(prepared.annotated) - 1
    assert prepared.annotated[prepared.roles.train.index(case_id)] == frozenset({1})
    assert prepared.roles.annotated == {case_id: ("ball_a",)}
    open_dataset(config(root), roles=prepared.roles)
    for changed in ({}, {case_id: ["ball_b"]}):
        declare(root, changed)
        with pytest.raises(UsageError, match=rf"other classes declared as annotated: {case_id}"):
            open_dataset(config(root), roles=prepared.roles)
    declare(root, {})
    open_dataset(config(root), roles=replace(prepared.roles, annotated=None))  # a run of an earlier version
    declare(root, {case_id: ["ball_a"], prepared.roles.test[0]: ["ball_b"]})
    open_dataset(config(root), roles=prepared.roles)


def test_everything_is_remembered(nnunet_raw, config, monkeypatch):
    root = nnunet_raw(cases=6)
    made = config(root)
    _, plan, prepared = run_all(made)
    for name in ("pipeline.check_cases", "pipeline.infer_labels", "store.read_case", "store.preprocess"):
        monkeypatch.setattr(f"segkit.data.{name}", lambda *_, **__: pytest.fail("done again"))
    _, plan_again, prepared_again = run_all(made)
    assert (plan_again, prepared_again) == (plan, prepared)


def test_roles_of_a_resumed_run_are_kept(nnunet_raw, config):
    made = config(nnunet_raw(cases=8))
    first = open_dataset(made)
    made["data"]["split"]["fold"] = 2
    assert open_dataset(made).roles != first.roles
    assert open_dataset(made, roles=first.roles).roles == first.roles


def test_max_cases_shortens_training_only(nnunet_raw, config):
    made = config(nnunet_raw(cases=9))
    whole = open_dataset(made).roles
    made["data"]["max_cases"] = 2
    short = open_dataset(made).roles
    assert short.train == whole.train[:2]
    assert (short.tuning, short.test) == (whole.tuning, whole.test)


def test_keys_reach_the_plan(nnunet_raw, config):
    made = config(nnunet_raw(cases=6, channels=2))
    made["plan"] |= {"patch_size": [16, 16, 8], "flip_axes": [], "spacing": [1, 1, 1.5]}
    made["trainer"] |= {"max_epochs": 7, "precision": "bf16-mixed"}
    made["validation"] |= {"every_n_epochs": 3, "tile_batch": 5}
    plan = plan_dataset(open_dataset(made), made, CPU)
    assert (plan.patch_size, plan.flip_axes, plan.spacing) == ((16, 16, 8), (), (1.0, 1.0, 1.5))
    assert (plan.max_epochs, plan.precision, plan.validation_every_n_epochs, plan.tile_batch) == (
        7,
        "bf16-mixed",
        3,
        5,
    )
    assert plan.channels == ("channel0", "channel1")
    made["plan"]["patch_size"] = [16, 16]
    with pytest.raises(UsageError, match="patch_size"):
        plan_dataset(open_dataset(made), made, CPU)


@pytest.mark.parametrize(("mode", "channels"), [("L", ("grey",)), ("RGB", ("red", "green", "blue"))])
def test_pictures_name_their_channels(paired_pictures, config, mode, channels):
    made = config(paired_pictures(mode=mode))
    plan = plan_dataset(open_dataset(made), made, CPU)
    assert plan.channels == channels
    assert (plan.dimensions, plan.unit) == (2, "pixel")


def test_instances_are_recognised(paired_pictures, config):
    opened = open_dataset(config(paired_pictures(kind="instances", cases=12)))
    assert opened.labels.kind == "instances"
    assert opened.labels.num_classes == 2


def test_faults_of_seen_cases_stop_and_are_named(nnunet_raw, config):
    root = nnunet_raw(cases=8)
    made = config(root)
    one, two = open_dataset(made).cases("train")[:2]
    one.images[0].write_bytes(one.images[0].read_bytes()[:300])
    Path(two.label).unlink()
    with pytest.raises(DataError) as caught:
        open_dataset(made)
    assert one.case_id in str(caught.value)
    assert two.case_id in str(caught.value)


def test_a_test_case_without_label_is_told_without_opening_it(nnunet_raw, config):
    made = config(nnunet_raw(cases=8))
    case = open_dataset(made).cases("test")[0]
    Path(case.label).unlink()
    with pytest.raises(DataError, match="no label") as caught:
        open_dataset(made)
    assert case.case_id in str(caught.value)


def test_no_foreground_is_told_before_training(nnunet_raw, config):
    import nibabel

    root = nnunet_raw(cases=6)
    for path in (root / "labelsTr").iterdir():
        label = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.zeros(label.shape, dtype=np.uint8), label.affine), path)
    made = config(root)
    with pytest.raises(DataError, match="no foreground in any case"):
        plan_dataset(open_dataset(made), made, CPU)


def test_names(nnunet_raw, config):
    made = config(nnunet_raw(cases=6))
    made["data"]["name"] = "mine"
    assert open_dataset(made).dataset.name == "mine"


def test_workers_by_size_and_device(nnunet_raw, config):
    opened = open_dataset(config(nnunet_raw(cases=6)))
    assert preparation_workers(opened.seen) == 0
    assert loader_workers("auto", CPU) == 0
    assert loader_workers("auto", DeviceFacts("cuda", "a GPU", 2**34, 16, native_bf16=True)) == 4
    assert loader_workers("auto", DeviceFacts("cuda", "a GPU", 2**34, 2, native_bf16=True)) == 1
    assert loader_workers(3, CPU) == 3


def test_what_is_remembered_is_json(nnunet_raw, config):
    made = config(nnunet_raw(cases=6))
    run_all(made)
    kinds = {path.parent.name for path in Path(made["paths"]["cache"]).glob("*/*.json")}
    assert {"facts", "findings", "labels"} <= kinds
    for path in Path(made["paths"]["cache"]).glob("*/*.json"):
        json.loads(path.read_text())


@pytest.mark.parametrize(
    ("name", "dimensions", "masked"),
    [("Dataset004_Hippocampus", 3, False), ("nuclei", 2, False), ("nuclei_rgb", 2, False)],
)
def test_real_data(real_data, config, name, dimensions, masked):
    made = config(real_data / name)
    made["plan"]["name"] = "auto"
    made["data"]["max_cases"] = 12
    _, plan, prepared = run_all(made)
    assert (plan.name, plan.dimensions, plan.masked) == ("small", dimensions, masked)
    assert len(prepared.train) == 12
