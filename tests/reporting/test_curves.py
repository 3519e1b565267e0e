import json
import math

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from segkit.reporting.curves import TRAINING, VALIDATION, Series, best_epoch, draw_curves, read_series, steps_per_epoch


def _line(key, value, *, step, epoch):
    return json.dumps({"n": 4 * step, "step": step, "epoch": epoch, "key": key, "value": value})


def _journal(tmp_path, lines):
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_series_are_ordered_by_step_and_a_repeated_value_replaces_the_first(tmp_path):
    lines = [_line("a", 2.0, step=20, epoch=2), _line("a", 1.0, step=10, epoch=1), _line("a", 3.0, step=20, epoch=2)]
    assert read_series(_journal(tmp_path, lines)) == {"a": Series([10, 20], [1, 2], [1.0, 3.0])}


@pytest.mark.parametrize("torn", ['{"n": 4', "[1, 2]", "null", '{"key": "a"}', "\x00\x00"])
def test_a_torn_line_is_passed_over(tmp_path, torn):
    series = read_series(_journal(tmp_path, [_line("a", 1.0, step=10, epoch=1), torn]))
    assert series["a"].values == [1.0]


def test_undefined_values_are_read_as_such(tmp_path):
    values = read_series(_journal(tmp_path, [_line("a", "nan", step=1, epoch=1), _line("a", "inf", step=2, epoch=1)]))
    assert math.isnan(values["a"].values[0])
    assert values["a"].values[1] == math.inf


def test_steps_per_epoch_come_from_what_was_measured_at_the_end_of_one():
    series = {"train/loss": Series([10, 60], [1, 2], [1.0, 1.0]), "train/dice": Series([50, 100], [1, 2], [0.0, 0.0])}
    assert steps_per_epoch(series) == 50.0
    assert steps_per_epoch({}) == 1.0


def test_the_best_epoch_is_the_first_of_the_highest_finite_scores():
    scores = Series([1, 2, 3, 4], [1, 2, 3, 4], [math.nan, 0.8, 0.8, 0.7])
    assert best_epoch({"val/score": scores}) == (2, 0.8)
    assert best_epoch({"val/score": Series([1], [1], [math.nan])}) is None
    assert best_epoch({}) is None


def _share(path, colour):
    picture = matplotlib.image.imread(path)[..., :3]
    return float((np.abs(picture - np.array(to_rgb(colour))).max(axis=-1) < 0.05).mean())


def test_curves_show_training_and_validation(tmp_path):
    lines = []
    for epoch in range(1, 6):
        lines.append(_line("train/loss_epoch", 1 / epoch, step=10 * epoch, epoch=epoch))
        lines.append(_line("val/score", 1 - 1 / epoch, step=10 * epoch, epoch=epoch))
    path = tmp_path / "new" / "curves.png"
    draw_curves(_journal(tmp_path, lines), path)
    assert _share(path, TRAINING) > 2e-4
    assert _share(path, VALIDATION) > 2e-4


def test_no_journal_gives_empty_panels(tmp_path):
    draw_curves(tmp_path / "missing.jsonl", tmp_path / "curves.png")
    assert _share(tmp_path / "curves.png", TRAINING) == 0
