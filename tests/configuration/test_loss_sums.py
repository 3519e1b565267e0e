"""Weighted sums of losses from the command line and from a file of the user, through the strict checks."""

import sys
from types import ModuleType

import pytest

from segkit.configuration import build_loss, compose, main
from segkit.errors import UsageError
from segkit.losses.focal import FocalLoss
from segkit.losses.loss import Loss

TERMS = ["loss=sum", "loss@loss.terms.main=dice_ce", "loss@loss.terms.hard=focal"]
WEIGHTS = ["loss.weights.main=1", "loss.weights.hard=0.5"]


class Helper(Loss):
    """A loss that cannot stand alone."""

    usable_alone = False

    def forward(self, logits, target):
        return (logits * 0).sum()


def complaint(*words):
    with pytest.raises(UsageError) as caught:
        compose("train", words)
    return str(caught.value)


def test_terms_are_files_of_the_group_with_their_keys_typed(plan):
    config = compose("train", [*TERMS, *WEIGHTS, "loss.terms.hard.gamma=3", "loss.terms.main.weights.ce=0.25"])
    loss = build_loss(config, plan)
    assert isinstance(loss.terms["hard"], FocalLoss)
    assert (loss.terms["hard"].gamma, config["loss"]["terms"]["hard"]["gamma"]) == (3.0, 3.0)
    assert loss.terms["main"].weights_at(0) == {"dice": 1.0, "ce": 0.25}
    assert loss.terms["main"].terms["dice"].batch_dice is plan.batch_dice
    assert loss.weights_at(0) == {"main": 1.0, "hard": 0.5}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loss.terms.hard.gama=3"], "Did you mean loss.terms.hard.gamma?"),
        (["loss.terms.hard.gamma=-1"], "-1 does not fit; expected float >= 0"),
        (["loss@loss.terms.more=focla"], "Did you mean loss@loss.terms.more=focal?"),
        (["loss@loss.terms.hard=dice"], "loss@loss.terms.hard is set twice"),
        (["loss@network.terms.more=dice"], "It has the form loss@loss.SECTION.NAME=CHOICE."),
        (["loss@loss=dice"], "a group has one place in the configuration"),
        (["loss@=dice"], "a group has one place in the configuration"),
        (["+loss@loss.terms.more=dice"], "keys are set, never added"),
        (["lost@lost.terms.more=dice"], "there is no group lost"),
    ],
)
def test_mistakes_in_terms_are_named(words, message):
    assert message in complaint(*TERMS, *WEIGHTS, *words)


def test_a_class_of_the_user_is_a_term(plan):
    path = f"{__name__}.Helper"
    config = compose("train", [*TERMS, *WEIGHTS, "loss@loss.terms.own=custom", f"loss.terms.own._target_={path}",
                               "loss.weights.own=2"])  # fmt: skip
    assert type(build_loss(config, plan, trust=True).terms["own"]).__name__ == "Helper"


def test_a_schedule_is_typed_like_the_rest(plan):
    loss = build_loss(compose("train", [*TERMS, *WEIGHTS, "loss.schedule.hard={0: 0, 10: 1.0}"]), plan)
    assert [loss.weights_at(epoch)["hard"] for epoch in (0, 5, 99)] == [0.0, 0.5, 1.0]
    default = build_loss(compose("train", ["loss.schedule={ce: {0: 1, 4: 0.5}}"]), plan)
    assert [default.weights_at(epoch)["ce"] for epoch in (0, 2, 4)] == [1.0, 0.75, 0.5]


def test_a_file_of_the_user_starts_from_ours(tmp_path, plan):
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text(
        "defaults: [dice_ce@terms.main, focal@terms.hard]\n"
        "_target_: segkit.losses.compound.WeightedSum\n"
        "weights: {main: 1.0, hard: 0.5}\n"
        "schedule: {hard: {0: 0.0, 20: 0.5}}\n"
    )
    config = compose("train", ["loss=mine", "loss.terms.hard.gamma=1"], config_dirs=[tmp_path])
    loss = build_loss(config, plan)
    assert (loss.terms["hard"].gamma, loss.weights_at(10)) == (1.0, {"main": 1.0, "hard": 0.25})
    with pytest.raises(UsageError, match="expected float >= 0"):
        compose("train", ["loss=mine", "loss.terms.hard.gamma=-1"], config_dirs=[tmp_path])


def test_an_empty_sum_says_how_to_fill_it(plan):
    with pytest.raises(UsageError, match=r"loss@loss\.terms\.dice=dice"):
        build_loss(compose("train", ["loss=sum"]), plan)
    with pytest.raises(UsageError, match=r"loss\.weights\.hard=1 loss\.weights\.main=1"):
        build_loss(compose("train", TERMS), plan)


def test_a_loss_that_cannot_stand_alone_is_refused_alone_and_taken_beside_another(plan):
    own = f"loss._target_={__name__}.Helper"
    with pytest.raises(UsageError, match=r"loss=sum loss@loss\.terms") as refused:
        build_loss(compose("train", ["loss=custom", own]), plan, trust=True)
    assert refused.value.exit_code == 2
    words = [*TERMS, *WEIGHTS, "loss@loss.terms.own=custom", own.replace("loss.", "loss.terms.own.", 1)]
    assert build_loss(compose("train", [*words, "loss.weights.own=1"]), plan, trust=True).usable_alone
    weights = ["loss.weights.own=1", "loss.weights.main=0", "loss.weights.hard=0"]
    config = compose("train", [*TERMS, *words[-2:], *weights])
    with pytest.raises(UsageError, match="cannot train a network alone"):
        build_loss(config, plan, trust=True)


def test_terms_are_swept(tmp_path, monkeypatch):
    seen = []
    module = ModuleType("segkit.workflows.train")
    module.run = lambda config, **_: seen.append(config)
    monkeypatch.setitem(sys.modules, "segkit.workflows.train", module)
    monkeypatch.chdir(tmp_path)
    words = ["loss=sum", "loss@loss.terms.a=dice,focal", "loss@loss.terms.b=focal", "loss.terms.b.gamma=1"]
    assert main("train", ["-m", "run_name=s", *words, "loss.weights={a: 1, b: 1}"]) == 0
    terms = [config["loss"]["terms"] for config in seen]
    assert [t["a"]["_target_"].rpartition(".")[2] for t in terms] == ["DiceLoss", "FocalLoss"]
    assert {t["b"]["gamma"] for t in terms} == {1.0}
