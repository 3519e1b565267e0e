"""What of the table of networks needs no training: who is tested, what is run, what is told."""

import json
from pathlib import Path

import pytest
from benchmarks.accuracy.split import MEASURE, TUNE
from benchmarks.network_table import COLUMNS, PLAN, STEPS, main, report, roles, train_command
from benchmarks.topology import NETWORKS
from benchmarks.trainings import write

from segkit.configuration import compose
from segkit.types import Case


def row(case, label, dice, *, parameters=5_600_000, minutes=0.84):
    cells = (case, f"person of {case}", label, str(dice), str(parameters), str(minutes))
    return dict(zip(COLUMNS, cells, strict=True))


def seed(dice, **cost):
    """Three cases; the second class is 0.1 worse everywhere."""
    values = (dice - 0.2, dice, dice + 0.2)
    pairs = [(case, value) for case, value in zip("abc", values, strict=True)]
    return [row(case, label, value - 0.1 * k, **cost) for case, value in pairs for k, label in enumerate("PQ")]


def test_nobody_tested_here_is_tested_elsewhere():
    measure, tune = (json.loads(path.read_text()) for path in (MEASURE, TUNE))
    ids = sorted({case for cases in measure.values() for case in cases})
    # The hippocampi 2k - 1 and 2k are one person.
    people = {case: (int(case.rsplit("_", 1)[1]) + 1) // 2 for case in ids}
    names = {person: f"person_{k:03d}" for k, person in enumerate(sorted(set(people.values())), start=1)}
    dealt = roles([Case(case, (), None, names[people[case]]) for case in ids])
    tested, trained = ({people[case] for case in dealt[role]} for role in ("test", "train"))
    assert len(tested) == 34
    assert len(trained) == 68
    assert not tested & trained
    assert not tested & {people[case] for case in (*measure["test"], *tune["test"])}
    assert not trained & {people[case] for case in measure["test"]}
    assert dealt["tuning"] == []


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_gets_the_same_words_but_its_name(network):
    words = train_command(network, 1, data=Path("/data"), workspace=Path("/runs"))
    own = {f"network={network}", f"run_name={network}-s1"}
    others = train_command("custom", 1, data=Path("/data"), workspace=Path("/runs"))
    assert set(words) - own == set(others) - {"network=custom", "run_name=custom-s1"}
    assert set(PLAN) <= set(words)


def test_the_words_are_a_training_of_so_many_steps():
    words = train_command("nnmamba_unet", 1, data=Path("/data"), workspace=Path("/runs"))
    config = compose("train", words[2:])
    assert (config["trainer"]["max_steps"], config["seed"]) == (STEPS, 1)


def test_the_report_tells_cost_mean_seeds_and_difference():
    text = report({"unet": [seed(0.7), seed(0.72)], "kiunet": [seed(0.6, parameters=650_000, minutes=2.0)] * 2})
    lines = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in text.splitlines()}
    assert lines["unet"][1:3] == ["5.60 M", "0.8, 0.8"]
    assert lines["unet"][3].startswith("0.6600 [")
    assert lines["unet"][4] == "0.6500, 0.6700"
    assert lines["kiunet"][1:3] == ["0.65 M", "2.0, 2.0"]
    # The same in every person, so that the interval is the difference itself.
    assert lines["kiunet"][5] == "-0.1100 [-0.1100, -0.1100]"
    assert "3 test cases of 3 people" in text
    assert f"{STEPS} steps each" in text
    assert "nothing is tuned" in text


def test_what_is_there_is_reported_and_not_run_again(tmp_path, capsys):
    results = tmp_path / "networks"
    write(results / "unet-s0.csv", seed(0.7), COLUMNS)
    words = ["--data", str(tmp_path / "absent"), "--results", str(results), "--only", "unet", "--seed", "0"]
    assert main(words) == 0
    assert "| unet | 5.60 M | 0.8 | 0.6500 [" in capsys.readouterr().out
    assert (tmp_path / "networks.md").is_file()
