import statistics
import subprocess
import sys
import time

import pytest

from segkit import VERBS
from segkit.configuration.help import render_help, render_overview
from segkit.configuration.tree import Tree, config_dir

TREE = Tree((config_dir(),))

LOOK = """
import runpy, sys
sys.argv = ["segkit", "--help"]
try:
    runpy.run_module("segkit.VERB", run_name="__main__")
except SystemExit as leave:
    code = leave.code
heavy = {"torch", "numpy", "hydra", "omegaconf", "lightning", "mlflow"} & set(sys.modules)
sys.stderr.write(",".join(sorted(heavy)))
sys.exit(code)
"""


@pytest.mark.parametrize("verb", VERBS)
def test_help_imports_nothing_heavy(verb, tmp_path):
    """The module run as by `python -m`, from a foreign folder."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK.replace("VERB", verb)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: python -m segkit.{verb}")


@pytest.mark.parametrize("verb", VERBS)
def test_help_takes_less_than_half_a_second(verb):
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", f"segkit.{verb}", "--help"], capture_output=True, check=True)
        return time.perf_counter() - start

    assert statistics.median(seconds() for _ in range(5)) < 0.5


def test_help_shows_every_key_with_its_comment():
    text = " ".join(render_help("train", TREE).split())
    for key, leaf in TREE.leaves("train", TREE.choices("train", {})).items():
        if not key.endswith("_target_") and key != "experiment":
            assert f"{key}={leaf.default} {leaf.text}" in text


def test_help_follows_the_choices():
    assert "network.args" not in render_help("train", TREE)
    assert "network.args={}" in render_help("train", TREE, chosen={"network": "custom"})
    assert "trainer.max_epochs=1000" in render_help("train", TREE, chosen={"experiment": "nnunet"})
    assert "sgd*" in render_help("train", TREE, chosen={"experiment": "nnunet"})


def test_overview_names_every_verb():
    lines = render_overview(TREE, VERBS).splitlines()
    assert all(any(line.startswith(f"  {verb} ") and len(line) > 15 for line in lines) for verb in VERBS)


def test_every_verb_has_a_file_and_a_door():
    assert TREE.names() == tuple(sorted(VERBS))
