"""calibration.json: the temperature of a run, or of the runs of an ensemble, read back for whoever applies it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit.errors import StorageError, UsageError
from segkit.runs.files import read_json

FILE = "calibration.json"


def temperature_of(folder: Path, models: Sequence[Mapping[str, Any]]) -> float:
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
    if not isinstance(known, list) or not all(isinstance(one, dict) for one in known):
        raise _damaged(path, "it does not say whose temperature it is")
    if sorted(map(_identity, known)) != sorted(map(_identity, models)):
        why = f"it is of {'; '.join(map(_identity, known))}"
        raise UsageError("the calibration is one of other models", where=str(path), why=why, mend=mend)
    return float(temperature)


def _identity(model: Mapping[str, Any]) -> str:
    axes = model.get("mirror_axes")
    mirrored = list(axes) if isinstance(axes, list | tuple) else axes
    return f"{model.get('run')} at step {model.get('checkpoint')}, tiles {model.get('step')}, mirrored {mirrored}"


def _damaged(path: Path, why: str) -> StorageError:
    mend = "remove it and run calibrate again"
    return StorageError("the calibration cannot be understood", where=str(path), why=why, mend=mend)
