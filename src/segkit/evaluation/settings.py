"""How a whole image becomes numbers: stored in the run, used by everything that scores it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from segkit.errors import UsageError
from segkit.metrics.composite import Aggregate, CompositeSettings, Level
from segkit.metrics.lesion import LesionSettings


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of the one way from an image to numbers.

    Args:
        composite: The score.
        lesion: When a lesion counts as found; used where the score is of lesions.
        step: Largest distance of two tiles, as a share of the patch.
        mirror_axes: Spatial axes to flip and average over; none for the score a checkpoint is selected by.
    """

    composite: CompositeSettings = field(default_factory=CompositeSettings)
    lesion: LesionSettings = field(default_factory=LesionSettings)
    step: float = 0.5
    mirror_axes: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `from_dict` is its inverse."""
        return {
            "composite": self.composite.to_dict(),
            "lesion": asdict(self.lesion),
            "step": self.step,
            "mirror_axes": list(self.mirror_axes),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "EvaluationSettings":
        """The settings that `to_dict` wrote."""
        return cls(
            composite=_composite(record["composite"]),
            lesion=LesionSettings(**record["lesion"]),
            step=float(record["step"]),
            mirror_axes=tuple(record["mirror_axes"]),
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "EvaluationSettings":
        """The settings of a resolved configuration: its groups `score` and `validation`.

        Raises:
            UsageError: Weights that do not sum to 1, an unknown level or aggregate.
        """
        score, validation = config["score"], config["validation"]
        return cls(
            composite=_composite(score),
            lesion=LesionSettings(**{key: v for key, v in score.get("lesion", {}).items() if v is not None}),
            step=float(validation["step"]),
        )


def _composite(record: Mapping[str, Any]) -> CompositeSettings:
    """Refuses, by name, what only Python callers can get past the configuration's own checks."""
    for key, allowed in (("level", get_args(Level)), ("aggregate", get_args(Aggregate))):
        if record[key] not in allowed:
            mend = f"use {' or '.join(allowed)}"
            raise UsageError(f"no such {key}: {record[key]}", where=f"score.{key}", mend=mend)
    weights = {term: float(weight) for term, weight in record["weights"].items()}
    return CompositeSettings(weights=weights, level=record["level"], aggregate=record["aggregate"])
