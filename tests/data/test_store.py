"""The store: found by content, whole or absent, mended where damaged, safe for several processes."""

import json
import logging
import os
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from segkit.data.entries import MAX_LOCATIONS, class_locations, damage
from segkit.data.layouts import discover
from segkit.data.preprocessing import content_hash_of, preprocess
from segkit.data.store import Store
from segkit.errors import DataError
from segkit.runs.leftovers import temporary_beside
from segkit.types import Labels

LABELS = Labels(("background", "ball_a", "ball_b"), (0, 1, 2))


@pytest.fixture
def cases(nnunet_raw):
    return discover(nnunet_raw(cases=3)).cases


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


def entries(store):
    return sorted(path.name for path in (store.root / "cases").iterdir())


def test_what_comes_out_is_what_preprocessing_makes(store, cases, plan):
    made, stored = preprocess(cases[0], plan()), store.get(cases[0], plan())
    for name in ("image", "label", "native_label"):
        assert np.array_equal(getattr(made, name), getattr(stored, name)), name
        assert getattr(made, name).dtype == getattr(stored, name).dtype
    assert isinstance(stored.image, np.memmap)
    assert not stored.image.flags.writeable
    assert stored.geometry == made.geometry
    assert stored.content_hash == made.content_hash == content_hash_of(cases[0].images)
    assert (stored.case_id, stored.group) == (cases[0].case_id, cases[0].group)


def test_an_entry_is_made_once(store, cases, plan, monkeypatch):
    first = store.prepare(cases[0], plan())
    monkeypatch.setattr("segkit.data.store.preprocess", lambda *_, **__: pytest.fail("made again"))
    assert store.prepare(cases[0], plan(), verify="content") == first


def test_key_follows_content_and_parameters_only(store, cases, plan, tmp_path):
    key = store.key(cases[0], plan())
    assert store.key(replace(cases[0], case_id="another", group="name"), plan()) == key
    assert store.key(cases[0], plan(patch_size=(8, 8, 8), batch_size=9, learning_rate=0.5)) == key
    assert store.key(cases[0], plan(spacing=(1.0, 1.0, 2.0))) != key
    assert store.key(cases[0], plan(), ["cells"]) != key
    moved = tmp_path / "elsewhere.nii.gz"
    moved.write_bytes(cases[0].images[0].read_bytes())
    assert store.key(replace(cases[0], images=(moved,)), plan()) == key
    assert store.key(replace(cases[0], label=cases[1].label), plan()) != key


def test_a_changed_file_is_prepared_anew(store, cases, plan):
    before = store.key(cases[0], plan())
    store.prepare(cases[0], plan())
    cases[0].images[0].write_bytes(cases[1].images[0].read_bytes())
    assert store.key(cases[0], plan()) != before


def test_hashes_of_old_files_are_remembered(store, cases, monkeypatch):
    path = cases[0].images[0]
    hour_ago = time.time() - 3600
    os.utime(path, (hour_ago, hour_ago))
    # The time of change (ctime) cannot be set: let the clock be ahead instead.
    monkeypatch.setattr("segkit.data.store.time.time_ns", lambda: (int(time.time()) + 60) * 10**9)
    first = store.file_hash(path)
    monkeypatch.setattr("segkit.data.store.file_hash", lambda _: pytest.fail("read again"))
    assert store.file_hash(path) == first


@pytest.mark.parametrize("how", ["truncated", "missing", "flipped", "no meta", "broken meta"])
def test_a_damaged_entry_is_named_and_made_again(store, cases, plan, how, caplog):
    entry = store.prepare(cases[0], plan())
    image, meta = entry.folder / "image.npy", entry.folder / "meta.json"
    good = image.read_bytes()
    if how == "truncated":
        image.write_bytes(good[:-100])
    elif how == "missing":
        image.unlink()
    elif how == "flipped":
        image.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    elif how == "no meta":
        meta.unlink()
    else:
        meta.write_text(meta.read_text()[:40])
    with caplog.at_level(logging.WARNING):
        (again,) = store.prepare_all(cases[:1], plan())
    assert "is damaged" in caplog.text
    assert cases[0].case_id in caplog.text
    assert again == entry
    assert image.read_bytes() == good
    assert damage(entry.folder, verify="content") is None


def test_nothing_half_made_is_left_when_preparing_fails(store, cases, plan, monkeypatch):
    monkeypatch.setattr("segkit.data.entries.np.save", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(OSError, match="disk full"):
        store.prepare(cases[0], plan())
    assert entries(store) == []


def test_processes_that_race_agree(store, cases, plan):
    found, errors = [], []

    def prepare():
        try:
            found.append(store.prepare(cases[0], plan()))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=prepare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(found) == 4
    assert all(entry == found[0] for entry in found)
    assert entries(store) == [found[0].folder.name]


def test_old_leftovers_are_swept_and_fresh_ones_are_not(store, cases, plan):
    mine = temporary_beside(store.root / "cases" / "b").name
    old, fresh = (store.root / "cases" / name for name in (".a.0123456789abcdef.tmp", mine))
    for folder in (old, fresh):
        folder.mkdir(parents=True)
    yesterday = time.time() - 2 * 24 * 3600
    os.utime(old, (yesterday, yesterday))
    store.prepare_all(cases[:1], plan())
    assert not old.exists()
    assert fresh.exists()


def test_several_processes_give_the_same_entries(store, cases, plan, tmp_path):
    steps = []
    alone = store.prepare_all(cases, plan(), on_done=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    other = Store(tmp_path / "other")
    together = other.prepare_all(cases, plan(), workers=2)
    for a, b in zip(alone, together, strict=True):
        assert a.folder.name == b.folder.name
        for path in a.folder.iterdir():
            assert path.read_bytes() == (b.folder / path.name).read_bytes()


def test_an_error_in_a_worker_arrives_with_its_parts(store, cases, plan):
    cases[1].images[0].write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        store.prepare_all(cases, plan(), workers=2)
    assert cases[1].case_id in str(caught.value)


def test_fields_are_kept_when_they_are_needed(store, cases, plan):
    plain = store.prepare(cases[0], plan())
    rich = store.prepare(cases[0], plan(), needs=frozenset({"cells", "instances", "spacing"}))
    assert "cells" not in plain.names
    assert {"cells", "instances"} <= rich.names
    assert rich.array("cells").shape == rich.shape
    assert rich.array("cells").min() >= 1
    assert np.array_equal(rich.load().cells, rich.array("cells"))
    assert np.array_equal(rich.load().instances, rich.array("instances"))
    assert plain.load().cells is plain.load().instances is None


def test_entries_with_fields_alone_are_made_again_where_fields_change(store, cases, plan, monkeypatch):
    before = [store.key(cases[0], plan(), kept) for kept in ([], ["cells"])]
    monkeypatch.setattr("segkit.data.store.fields.FORMAT", 1)
    after = [store.key(cases[0], plan(), kept) for kept in ([], ["cells"])]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False]


def test_locations_are_voxels_of_their_class(store, cases, plan):
    entry = store.prepare(cases[0], plan())
    label = entry.array("label")
    assert entry.classes == (1, 2)
    for index in entry.classes:
        start, stop = entry.locations[index]
        assert stop - start == min(int((label == index).sum()), MAX_LOCATIONS)
        rows = [entry.location(index, row) for row in range(stop - start)]
        assert len(set(rows)) == len(rows)
        assert all(label[row] == index for row in rows)
        with pytest.raises(IndexError, match="asked for"):
            entry.location(index, stop - start)


def test_large_classes_keep_a_keyed_sample():
    label = np.ones((40, 40, 40), dtype=np.int8)
    label[0] = 0
    first, again = (class_locations(label, num_classes=4, seed=5) for _ in range(2))
    assert list(first) == [1]
    assert first[1].shape == (MAX_LOCATIONS, 3)
    assert np.array_equal(first[1], again[1])
    assert len(np.unique(first[1], axis=0)) == MAX_LOCATIONS
    assert first[1][:, 0].mean() == pytest.approx(20, abs=0.5)
    assert not np.array_equal(first[1], class_locations(label, num_classes=4, seed=6)[1])


def test_facts_are_remembered_by_content(store, cases, monkeypatch):
    first = store.facts(cases[0], LABELS)
    assert first.shape == (20, 24, 18)
    assert sum(first.class_voxels) == 20 * 24 * 18
    monkeypatch.setattr("segkit.data.store.read_case", lambda *_: pytest.fail("read again"))
    assert store.facts(cases[0], LABELS) == first


def test_a_damaged_memory_is_computed_again(store, caplog):
    assert store.remember("kind", {"a": 1}, lambda: [1, 2]) == [1, 2]
    (path,) = (store.root / "kind").iterdir()
    assert store.remember("kind", {"a": 1}, lambda: pytest.fail("computed again")) == [1, 2]
    path.write_text("[1,")
    assert store.remember("kind", {"a": 1}, lambda: [3]) == [3]
    assert "is damaged" in caplog.text
    assert json.loads(path.read_text()) == [3]


def test_a_missing_file_is_bad_data(store, cases, plan):
    cases[0].images[0].unlink()
    with pytest.raises(DataError, match="cannot be read"):
        store.prepare(cases[0], plan())


def test_annotated_classes_come_from_the_case_and_not_from_the_entry(store, cases, plan):
    """The declaration lies beside the files and may change: the entry, which is of the files, stays."""
    partly = replace(cases[0], annotated=("ball_b",))
    before, after = store.prepare(cases[0], plan()), store.prepare(partly, plan())
    assert after.folder == before.folder
    assert (before.annotated, after.annotated) == (None, frozenset({2}))
    assert store.get(partly, plan()).annotated == preprocess(partly, plan()).annotated == frozenset({2})
