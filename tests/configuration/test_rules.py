import pytest

from segkit.configuration import compose
from segkit.errors import UsageError

SUM_OF_SUMS = ["loss=sum", "loss@loss.terms.main=dice_ce", "loss.weights.main=1"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["score.weights.f1=0.5"], "weights must sum to 1, found f1 0.5 + iou 0.25"),
        (["data.split.fold=5"], "there are 5 folds, counted from 0"),
        (["data.split.tuning=0", "early_stopping.patience=3"], "early_stopping.patience: needs tuning cases"),
        (["data.split.tuning=0", "select=best"], "select=best: needs tuning cases"),
        (["data.split.tuning=0", "scheduler=plateau"], "scheduler=plateau: needs tuning cases"),
        (["validation.where=apart", "scheduler=plateau"], "scheduler=plateau: the plateau needs each validation"),
        (
            ["scheduler=plateau", "loss.schedule.ce={0:1.0,50:0.1}"],
            "scheduler=plateau: the plateau compares val/loss between epochs, and loss.schedule changes",
        ),
        (
            ["scheduler=plateau", *SUM_OF_SUMS, "loss.terms.main.schedule.ce={0:1.0,50:0.1}"],
            "set loss.terms.main.schedule=null",
        ),
        (["plan.features=[8,16]", "plan.strides=[[1,1]]"], "features has 2, strides has 1"),
        (["plan.spacing=[1,1]", "plan.patch_size=[8,8,8]"], "one entry each axis"),
        (["scheduler=cyclic", "scheduler.base_lr=1"], "must be below scheduler.max_lr=0.01"),
        (["run_name=../elsewhere"], "a run lies under paths.runs"),
    ],
)
def test_a_broken_rule_is_named(overrides, message):
    with pytest.raises(UsageError) as caught:
        compose("train", overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["score.weights.f1=1", "score.weights.iou=0", "score.weights.recall=0", "score.weights.precision=0"],
        ["data.split.tuning=0"],
        ["validation.where=apart", "early_stopping.patience=3"],
        ["validation.where=here", "scheduler=plateau"],
        ["scheduler=poly", "loss.schedule.ce={0:1.0,50:0.1}"],
        ["scheduler=plateau", "loss.schedule.ce={0:0.5,50:0.5}"],
        ["scheduler=plateau", *SUM_OF_SUMS],
        ["data.split.folds=3", "data.split.fold=2"],
        ["plan.features=[8,16]", "plan.strides=[[1,1],[2,2]]"],
    ],
)
def test_a_kept_rule_is_silent(overrides):
    compose("train", overrides)
