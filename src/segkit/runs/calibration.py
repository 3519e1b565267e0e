"""calibration.json: the temperature of a run, or of the runs of an ensemble, read back for whoever applies it."""

import math
from pathlib import Path

from segkit.errors import StorageError, UsageError
from segkit.runs.files import read_json
from segkit.runs.model_identity import Models, are_models, models_text, same_models

FILE = "calibration.json"
TABLE = "calibration_per_case.csv"
"""Beside it: the numbers of each test case."""


def temperature_of(folder: Path, models: Models) -> float:
    """The temperature that was fitted for these models, applied as softmax(mean logits / T).

    Args:
        folder: The run folder, or the `output` of a calibration of several runs.
        models: Of each model `run` (its name), `checkpoint` (its step), `step` (of the tiles) and `mirror_axes`: what
            decides its logits. Other keys are not looked at, nor is the order.

    Raises:
        UsageError: There is no calibration, or it is one of other models.
        StorageError: It is damaged.
    """
    path = folder / FILE
    mend = "python -m segkit.calibrate run=<these runs>, with the same checkpoint, validation.step and mirror"
    try:
        stored = read_json(path)
    except FileNotFoundError as error:
        raise UsageError("there is no calibration", where=str(path), why="no such file", mend=mend) from error
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    temperature, known = stored.get("temperature"), stored.get("models")
    number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if temperature is None or not number or not (math.isfinite(temperature) and temperature > 0):
        raise _damaged(path, f"its temperature is {str(temperature)[:80]!r}")
    if not are_models(known):
        raise _damaged(path, "it does not say whose temperature it is")
    if not same_models(known, models):
        why = f"it is of {models_text(known)}"
        raise UsageError("the calibration is one of other models", where=str(path), why=why, mend=mend)
    return float(temperature)


def _damaged(path: Path, why: str) -> StorageError:
    mend = "remove it and run calibrate again"
    return StorageError("the calibration cannot be understood", where=str(path), why=why, mend=mend)
