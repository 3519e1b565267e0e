"""Every loss and every network of the configuration trains two epochs on the sample hippocampi: finite, and falling."""

import json
import math
from pathlib import Path

import pytest

import segkit

CONFIGS = Path(__file__).parents[2] / "configs"
TO_FILL = {"custom", "sum"}
"""Files that a user completes."""

pytestmark = pytest.mark.slow


def choices(group):
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml") if path.stem not in TO_FILL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of all runs here: the cases are prepared once."""
    return tmp_path_factory.mktemp("runs")


def losses_by_epoch(folder, word):
    """Mean training loss of each of two epochs of a run with this choice."""
    run = segkit.train(
        [
            *("plan=tiny", word, "trainer.max_epochs=2", "trainer.steps_per_epoch=30", "validation.every_n_epochs=2"),
            *("data.max_cases=12", "tracking=none", "overlays.cases=0"),
            *(f"paths.runs={folder}", f"run_name={word.replace('=', '-')}"),
        ]
    )
    lines = (run.directory.path / "metrics.jsonl").read_text().splitlines()
    found = [entry["value"] for entry in map(json.loads, lines) if entry["key"] == "train/loss_epoch"]
    assert math.isfinite(run.score)
    assert len(found) == 2
    return found


@pytest.mark.parametrize("name", choices("loss"))
def test_every_loss(folder, name):
    first, second = losses_by_epoch(folder, f"loss={name}")
    assert math.isfinite(first)
    assert second < first


@pytest.mark.parametrize("name", choices("network"))
def test_every_network(folder, name):
    first, second = losses_by_epoch(folder, f"network={name}")
    assert math.isfinite(first)
    assert second < first
