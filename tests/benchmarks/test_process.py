"""Processes of the contenders: what they are given, and what is said where they fail."""

import json

import pytest
from benchmarks.process import run_python

WRITE = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"


def test_variables_are_set_and_taken_away(tmp_path, monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "2000")
    monkeypatch.setenv("KEPT", "as it was")
    target = tmp_path / "environment.json"
    run_python(["-c", WRITE, str(target)], environment={"GOMP_SPINCOUNT": None, "NEVER_THERE": None, "GIVEN": "1"})
    found = json.loads(target.read_text())
    assert "GOMP_SPINCOUNT" not in found
    assert "NEVER_THERE" not in found
    assert (found["GIVEN"], found["KEPT"]) == ("1", "as it was")


def test_a_failure_is_quoted():
    with pytest.raises(RuntimeError, match=r"ended with code 3:\nnothing works"):
        run_python(["-c", "import sys; sys.stderr.write('nothing works'); sys.exit(3)"])
