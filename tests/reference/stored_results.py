"""What another package said of the pairs of masks, stored, so that it need not be installed where the tests run."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.reference.agreement_masks import BY_NAME, PAIRS


def write(path: Path, *, package: str, made_by: str, results: Mapping[str, Mapping[str, float]]) -> None:
    """Write the results of every pair, by the name of the pair, with the checksum of its masks."""
    record = {
        "package": package,
        "made_by": made_by,
        "pairs": {
            pair.name: {"checksum": pair.checksum, **{key: _stored(v) for key, v in results[pair.name].items()}}
            for pair in PAIRS
        },
    }
    path.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")


def read(path: Path) -> dict[str, dict[str, float]]:
    """The numbers of every pair, by the name of the pair; refuses those of other masks than the ones made here."""
    stored = json.loads(path.read_text())["pairs"]
    assert set(stored) == set(BY_NAME), "the pairs changed: run the script that made this file again"
    for name, record in stored.items():
        assert record.pop("checksum") == BY_NAME[name].checksum, f"the masks of '{name}' changed: make the file again"
    return {name: {key: _number(value) for key, value in record.items()} for name, record in stored.items()}


def _stored(value: float) -> Any:
    """JSON has no NaN and no infinity."""
    value = float(value)
    return None if math.isnan(value) else "inf" if math.isinf(value) else value


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
