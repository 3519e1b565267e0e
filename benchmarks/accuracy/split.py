"""The two splits of this measurement, dealt once by segkit's own rule from the groups (persons) of the hippocampi.

Four parts of 34 people. Part 0 is the measurement's test part: nothing but this measurement reads it. Part 1 is the
test part that recipes are tuned on; in that split the people of part 0 have no role at all, so that no run that
chooses anything can have seen them.

    python -m benchmarks.accuracy.split --data ../shared/data/Dataset004_Hippocampus
"""

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segkit.data.splits import Roles, assign_roles
from segkit.types import Case

FOLDER = Path(__file__).resolve().parent
MEASURE = FOLDER / "split_measure.json"
TUNE = FOLDER / "split_tune.json"
FOLDS, MEASURED, TUNED = 4, 0, 1


def cases_of(table: Path) -> tuple[Case, ...]:
    """The cases of a groups.csv, without their files."""
    with table.open(newline="") as rows:
        return tuple(Case(row["case"], (), None, row["group"]) for row in csv.DictReader(rows))


def measure_and_tune(cases: Sequence[Case]) -> tuple[Roles, Roles]:
    """The split that is measured on and the split that is tuned on.

    Args:
        cases: All cases with their groups.

    Returns:
        Roles of part 0 as the test part; roles of part 1 as the test part, without part 0's test cases.
    """
    measure, tune = (assign_roles(cases, folds=FOLDS, fold=fold) for fold in (MEASURED, TUNED))
    hidden = set(measure.test)
    train, tuning = (tuple(case for case in ids if case not in hidden) for ids in (tune.train, tune.tuning))
    return measure, replace(tune, train=train, tuning=tuning)


def text_of(roles: Roles) -> str:
    """What `data.split.file` reads."""
    return json.dumps({"train": roles.train, "tuning": roles.tuning, "test": roles.test}, indent=1) + "\n"


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="nnU-Net raw folder with groups.csv")
    measure, tune = measure_and_tune(cases_of(parser.parse_args().data / "groups.csv"))
    MEASURE.write_text(text_of(measure))
    TUNE.write_text(text_of(tune))


if __name__ == "__main__":
    main()
