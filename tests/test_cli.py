import os
import sys

import pytest

from segkit import VERBS, __version__, cli


@pytest.fixture
def run(monkeypatch, capsys):
    replaced = []

    def execv(path, argv):
        replaced.append((path, argv))
        raise SystemExit(0)  # the real one does not return either

    monkeypatch.setattr(os, "execv", execv)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["segkit", *words])
        try:
            code = cli.main()
        except SystemExit as left:
            code = left.code
        out, err = capsys.readouterr()
        return code, out, err, replaced

    return call


def test_a_verb_becomes_the_module(run):
    replaced = run("train", "data.root=/a b", "--help")[3]
    assert replaced == [(sys.executable, [sys.executable, "-m", "segkit.train", "data.root=/a b", "--help"])]


def test_the_overview_and_the_version(run):
    code, out, _, replaced = run()
    assert code == 0
    assert all(verb in out for verb in VERBS)
    assert run("--version")[1] == f"segkit {__version__}\n"
    assert replaced == []


def test_an_unknown_verb_is_met_with_the_nearest(run):
    code, _, err, replaced = run("trian")
    assert code == 2
    assert "Did you mean train?" in err
    assert replaced == []
