"""The whole way, where the peers are installed (in the environment of `make bench`)."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(importlib.util.find_spec("nnunetv2") is None, reason="nnU-Net is not installed; see `make bench`")
def test_a_quick_run_writes_a_report(tmp_path):
    rows = ["loss", "prediction", "epoch"]
    words = ["-m", "benchmarks", *rows, "--quick", "--results", str(tmp_path)]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (report,) = tmp_path.glob("*-cpu.md")
    text = report.read_text()
    for line in ("| Dice + cross-entropy | MONAI |", "| Whole image | nnU-Net |", "| Epoch, a step | nnU-Net |"):
        assert line in text
    assert "failed" not in text


def test_an_unknown_row_is_refused_by_name(tmp_path):
    words = ["-m", "benchmarks", "steps", "--results", str(tmp_path)]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no row steps; there are augmentation, loss, " in done.stderr
    assert not list(tmp_path.iterdir())
