"""What a validation measures: the same function of the same cases within the training process and apart from it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from segkit.evaluation import CaseResult, EvaluationSettings, Summary, evaluate_case, summarise
from segkit.inference.predictor import ImagePredictor
from segkit.losses.partial_labels import classes_present
from segkit.ops.instances import compact
from segkit.types import ID_FIELDS, Labels, PreparedCase, Spacing, Target

ScoredCase = tuple[CaseResult, float]
"""The counts of a case, and its `val/loss`."""


@dataclass(frozen=True)
class Validation:
    """The numbers of one validation.

    Args:
        summary: Score, and each metric by class.
        loss: Mean over the cases; NaN without cases.
    """

    summary: Summary
    loss: float

    def values(self) -> dict[str, float]:
        """`val/score`, `val/loss`, `val/dice`, ...: NaN where there is no value."""
        return {"val/score": self.summary.score, "val/loss": self.loss, **self.summary.flat("val")}


def score_case(
    predictor: ImagePredictor, loss: nn.Module, case: PreparedCase, *, settings: EvaluationSettings, spacing: Spacing
) -> ScoredCase:
    """Score one whole image as `evaluate` does; its blended logits also give `val/loss`.

    Args:
        predictor: Logits of a prepared image.
        loss: The configured loss of one level.
        case: With its reference.
        settings: How it becomes numbers.
        spacing: Of the plan's grid.
    """
    result = evaluate_case(predictor, case, settings)
    assert result.logits is not None
    value = float(whole_image_loss(loss, result.logits, case, spacing=spacing))
    return result.without_arrays(), value


def whole_image_loss(loss: nn.Module, logits: Float[Tensor, "K *S"], case: PreparedCase, *, spacing: Spacing) -> Tensor:
    """The configured loss of the blended logits on the plan's grid: drives only the plateau schedule.

    Args:
        loss: Of one level.
        logits: Of the whole image.
        case: With its label, and with those of `instances` and `cells` that the loss needs.
        spacing: Of the grid.
    """
    needs: frozenset[str] = getattr(loss, "needs", frozenset())
    maps = {name: ids for name in ID_FIELDS if name in needs and (ids := getattr(case, name)) is not None}
    numbered, count = compact(list(maps.values()))
    annotated = case.annotated
    present = None if annotated is None else classes_present([annotated], num_classes=len(logits)).to(logits.device)
    target = Target(
        label=_on(logits.device, np.array(case.label, dtype=np.int64)),
        labels_present=present,
        spacing=spacing,
        num_instances=count if maps else None,
        **{name: _on(logits.device, ids) for name, ids in zip(maps, numbered, strict=True)},
    )
    value: Tensor = loss(logits[None], target)
    return value


def _on(device: torch.device, array: np.ndarray) -> Tensor:
    """As a batch of one, with one channel."""
    return torch.from_numpy(array).to(device)[None, None]


def validation_of(scored: Iterable[ScoredCase], labels: Labels, settings: EvaluationSettings) -> Validation:
    """Aggregate cases, each once, sorted by id: the numbers do not depend on who scored what."""
    by_case = {result.case_id: (result, loss) for result, loss in scored}
    cases = [by_case[case_id] for case_id in sorted(by_case)]
    loss = sum(loss for _, loss in cases) / len(cases) if cases else math.nan
    return Validation(summarise([result for result, _ in cases], labels, settings), loss)


def defined(values: dict[str, float]) -> dict[str, float]:
    """Those that are numbers: an undefined one is left out, not written down as 0."""
    return {key: value for key, value in values.items() if not math.isnan(value)}
