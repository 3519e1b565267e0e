"""The only way from an image to numbers.

`evaluate_case` runs the predictor over a prepared case, brings the logits back to the image's own voxels and
counts there (`evaluate_streams` does so with the mean of several); `summarise` makes the numbers of a set of cases.
Validation during training, `evaluate` and whatever else scores a model call these two with the settings stored in the
run, so that they agree. What no checkpoint is chosen by (surfaces, volumes, lesions one by one) `detail_case` measures
on the same masks.
"""

from segkit.evaluation.case import CaseResult, count_masks, evaluate_case, evaluate_streams, predict_native
from segkit.evaluation.detail import ClassDetail, DetailSettings, detail_case
from segkit.evaluation.detail_summary import DetailSummary, summarise_details
from segkit.evaluation.files import write_per_case, write_summary
from segkit.evaluation.native import native_prediction
from segkit.evaluation.settings import EvaluationSettings
from segkit.evaluation.summary import ClassSummary, Summary, summarise

__all__ = [
    "CaseResult",
    "ClassDetail",
    "ClassSummary",
    "DetailSettings",
    "DetailSummary",
    "EvaluationSettings",
    "Summary",
    "count_masks",
    "detail_case",
    "evaluate_case",
    "evaluate_streams",
    "native_prediction",
    "predict_native",
    "summarise",
    "summarise_details",
    "write_per_case",
    "write_summary",
]
