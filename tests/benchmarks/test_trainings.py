"""What stands in a line of a table of trainings."""

import numpy as np
import pytest
from benchmarks.trainings import compared, read, write

from segkit.metrics.paired_comparison import paired_difference
from segkit.metrics.uncertainty import macro_interval

PEOPLE = ["a", "a", "b", "c", "d"]


def tables(seeds=3):
    random = np.random.default_rng(0)
    reference = random.uniform(0.6, 0.8, (seeds, len(PEOPLE), 2))
    return {"old": reference, "new": reference + random.uniform(0.0, 0.1, reference.shape)}


def test_a_line_is_mean_seeds_and_difference_by_person():
    values = tables()
    (old, new) = compared(values, PEOPLE, reference="old")
    mean = macro_interval(values["new"].mean(axis=0), PEOPLE)
    gain = paired_difference(values["old"], values["new"], PEOPLE).interval
    seeds = ", ".join(f"{seed.mean():.4f}" for seed in values["new"])
    assert old[0] == "old"
    assert old[1][2] == ""
    assert new == (
        "new",
        [
            f"{mean.mean:.4f} [{mean.low:.4f}, {mean.high:.4f}] n=5",
            seeds,
            f"+{gain.mean:.4f} [{gain.low:+.4f}, {gain.high:+.4f}]",
        ],
    )
    assert gain.n_groups == 4
    assert values["new"].mean() == pytest.approx(mean.mean)


def test_a_case_without_a_value_is_not_counted():
    values = {"old": np.array([[[0.5], [np.nan], [0.7], [0.9], [0.7]]])}
    ((_, cells),) = compared(values, PEOPLE, reference="old")
    assert cells[0].startswith("0.7000 [")
    assert cells[0].endswith(" n=4")
    assert cells[1] == "0.7000"


def test_without_its_reference_nothing_is_compared():
    ((_, cells),) = compared({"new": tables()["new"]}, PEOPLE, reference="old")
    assert cells[2] == ""


def test_a_table_survives_its_file(tmp_path):
    path = tmp_path / "new" / "table.csv"
    assert read(path) == []
    write(path, [{"case_id": "a", "dice": 0.5, "more": 1}, {"case_id": "b", "dice": ""}], ["case_id", "dice"])
    assert read(path) == [{"case_id": "a", "dice": "0.5"}, {"case_id": "b", "dice": ""}]
