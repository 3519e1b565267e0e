"""Ids become pseudonyms that only who has the key can make; paths and hosts go."""

import hashlib
import hmac
import os
import stat

import pytest

from segkit.errors import StorageError
from segkit.runs.directory import RunDirectory
from segkit.runs.sweep import SweepDirectory
from segkit.tracking.pseudonyms import KEY_FILE, Pseudonyms, key_beside

KEY = b"k" * 32
NAMES = Pseudonyms(KEY, ["anna", "anna-2", "0007"], places=["/my data/set"], hosts=["node17"])


def pseudonym(name):
    return "anon-" + hmac.new(KEY, name.encode(), hashlib.sha256).hexdigest()[:12]


def test_a_pseudonym_is_a_keyed_hash():
    assert NAMES.of("anna") == pseudonym("anna") != NAMES.of("anna-2")
    assert Pseudonyms(b"x" * 32, []).of("anna") != NAMES.of("anna")
    assert NAMES.of_known("0007") == pseudonym("0007")
    assert NAMES.of_known("liver") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("case anna, label", f"case {pseudonym('anna')}, label"),
        ("anna-2_0000.nii.gz", f"{pseudonym('anna-2')}_0000.nii.gz"),  # the longest id that fits
        ("hanna annabel", "hanna annabel"),
        ("0007 of 0012", "0007 of 0012"),  # a number in a sentence
        ("read /data/x/anna.nii: no", "read <path> no"),
        ("Run folder: `/data/runs/a`", "Run folder: `<path>`"),
        ("at /my data/set/imagesTr/anna.nii", "at <path>"),
        ("~/data ../x C:\\data\\x", "<path> <path> <path>"),
        ("http://node17:5000/x and node17", "http:<path> and <host>"),
        ("n/a, 3/4, 2 / (1 + 3)", "n/a, 3/4, 2 / (1 + 3)"),
    ],
)
def test_texts(text, expected):
    assert NAMES.text(text) == expected


def test_one_key_for_the_runs_of_a_folder_and_their_sweeps(tmp_path):
    one, other = (RunDirectory(tmp_path / "runs" / name).create() for name in "ab")
    key = key_beside(one)
    assert len(key) == 32
    assert key_beside(other) == key
    path = tmp_path / "runs" / KEY_FILE
    assert path.read_bytes() == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    sweep = SweepDirectory(tmp_path / "runs" / "cv")
    job = RunDirectory(sweep.path / "0-fold=0").create()
    assert key_beside(sweep) == key_beside(job) == key
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {"a", "b", "cv", KEY_FILE}


def test_a_key_that_is_cut_off_is_refused(tmp_path):
    run = RunDirectory(tmp_path / "runs" / "a").create()
    (tmp_path / "runs" / KEY_FILE).write_bytes(b"")
    with pytest.raises(StorageError, match="damaged"):
        key_beside(run)


def test_without_hard_links_a_key_is_made_too(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    run = RunDirectory(tmp_path / "runs" / "a").create()
    assert key_beside(run) == key_beside(run)
    assert not list(tmp_path.glob("**/*.tmp"))


def test_a_sweep_that_comes_first_makes_the_key_where_runs_find_it(tmp_path):
    sweep = SweepDirectory(tmp_path / "runs" / "cv")
    job = RunDirectory(sweep.path / "0-fold=0").create()
    sweep.multirun.write_text("hydra: {}\n")
    key = key_beside(job)
    assert (tmp_path / "runs" / KEY_FILE).read_bytes() == key
    assert key_beside(RunDirectory(tmp_path / "runs" / "a").create()) == key
    assert not list(tmp_path.glob("**/*.tmp"))
