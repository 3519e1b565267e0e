"""The banner holds its length, and its commands survive a shell."""

import dataclasses
import shlex

from segkit.reporting.banner import MAX_LINES, EndFacts, StartFacts, command_line, end_block, start_banner

FACTS = StartFacts(
    version="0.1.0",
    run_name="hippocampus-20261121",
    dataset="Hippocampus",
    layout="nnunet",
    channels=("MRI",),
    classes=("background", "Anterior", "Posterior"),
    people={"train": (40, 27), "tuning": (5, 5), "test": (8, 8)},
    plan_name="small",
    spacing=(1.0, 1.0, 1.0),
    unit="mm",
    patch_size=(40, 56, 40),
    batch_size=4,
    network="UNet",
    described="1.41 M parameters",
    recipe="dice_ce, adamw, cosine",
    epochs=(1, 20),
    steps_per_epoch=50,
    device="cpu, 2 threads",
    precision="bf16-mixed",
    score="0.40 F1 + 0.25 IoU",
    run_folder="/tmp/runs/x",
    tracking="sqlite:////tmp/mlflow.db",
    resume_line="python -m segkit.train run_name=x",
)


def test_the_banner_names_what_matters_and_counts_people_where_cases_differ() -> None:
    text = start_banner(FACTS)
    for part in ("train 40 of 27 people", "tuning 5,", "test 8;", "1.41 M", "bf16-mixed", "run_name=x"):
        assert part in text
    assert len(text.splitlines()) <= MAX_LINES


def test_who_is_held_out_is_counted_where_somebody_is() -> None:
    assert "; the test files are not opened" in start_banner(FACTS)
    held = dataclasses.replace(FACTS, people={**FACTS.people, "held_out": (6, 4)})
    assert "test 8, held out 6 of 4 people; the test and held-out files are not opened" in start_banner(held)


def test_memory_stands_below_the_device() -> None:
    facts = dataclasses.replace(FACTS, memory="predicted 3.2 GB for training of 21.4 GB free")
    lines = start_banner(facts).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("  device "))
    assert lines[at + 1] == "  memory      predicted 3.2 GB for training of 21.4 GB free"
    assert "memory" not in start_banner(FACTS)


def test_forty_warnings_still_fit() -> None:
    text = start_banner(dataclasses.replace(FACTS, warnings=[f"w{i}" for i in range(40)], resumed_from="step 3"))
    assert len(text.splitlines()) == MAX_LINES
    shown = sum(1 for line in text.splitlines() if line.strip().startswith("warning     w"))
    assert f"and {40 - shown} more warnings" in text


def test_commands_survive_a_shell() -> None:
    overrides = ["data.root=/my data/a=b", "loss=dice_ce", "data.groups='regex:(\\w+)'"]
    assert shlex.split(command_line("train", overrides))[3:] == overrides


def test_the_end_block_calls_the_score_optimistic_and_gives_n() -> None:
    facts = EndFacts("max_epochs", "step-100", 0.8512, 0.0123, 5, 3.2, {"run": "/r"}, ["python -m segkit.evaluate"])
    text = end_block(facts)
    assert "selection score (optimistic)  0.8512 +- 0.0123 (standard error), n = 5" in text
    assert "none: no tuning cases" in end_block(dataclasses.replace(facts, score=None))
