"""The parts that a configuration describes; weighted sums of losses, through the checks of the command line."""

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch

from segkit.configuration import (
    build_loss,
    build_network,
    build_optimizer,
    build_recipe,
    build_scheduler,
    compose,
    main,
)
from segkit.errors import UsageError
from segkit.losses.focal import FocalLoss
from segkit.losses.loss import Loss

TERMS = ["loss=sum", "loss@loss.terms.main=dice_ce", "loss@loss.terms.hard=focal"]
WEIGHTS = ["loss.weights.main=1", "loss.weights.hard=0.5"]


def test_the_plan_fills_in_the_network(plan):
    network = build_network(compose("train"), plan).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 16, 16, 16)).shape == (1, 3, 16, 16, 16)


def test_the_learning_rate_is_the_plans_unless_it_is_set(plan):
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    assert build_optimizer(compose("train"), plan)(parameters).defaults["lr"] == plan.learning_rate
    typed = compose("train", ["optimizer=sgd", "optimizer.lr=0.5"])
    optimizer = build_optimizer(typed, plan)(parameters)
    assert (optimizer.defaults["lr"], optimizer.defaults["nesterov"]) == (0.5, True)


@pytest.mark.parametrize(
    ("words", "precision", "fused"),
    [
        ([], "32-true", True),
        (["optimizer=sgd"], "bf16-mixed", True),
        ([], "16-mixed", None),
        (["optimizer=custom", "optimizer._target_=torch.optim.AdamW", "optimizer.args.foreach=true"], "32-true", None),
        (["optimizer=custom", "optimizer._target_=torch.optim.Adam"], "32-true", True),
    ],
)
def test_an_optimizer_is_fused_unless_the_user_chose_otherwise(plan, words, precision, fused):
    build = build_optimizer(compose("train", words), replace(plan, precision=precision), trust=True)
    assert build([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]["fused"] is fused


def test_the_schedule_gets_its_horizon(plan):
    optimizer = build_optimizer(compose("train"), plan)([torch.nn.Parameter(torch.zeros(1))])
    schedule = build_scheduler(compose("train", ["scheduler=poly", "scheduler.exponent=1"]))(optimizer, total_steps=4)
    rates = []
    for _ in range(4):
        rates.append(schedule.get_last_lr()[0] / plan.learning_rate)
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1, 0.75, 0.5, 0.25])


def test_a_part_of_the_recipe_can_be_left_out():
    with_noise, without = (
        build_recipe(compose("train", words)) for words in ([], ["augmentation.intensity.noise=null"])
    )
    assert type(with_noise) is type(without)


def test_a_class_of_the_user_is_built_where_it_was_typed_only(plan):
    typed = compose("train", ["loss=custom", "loss._target_=fractions.Fraction", "loss.args.numerator=3"])
    with pytest.raises(UsageError, match="trust=true"):
        build_loss(typed, plan)
    found = build_optimizer(
        compose("train", ["optimizer=custom", "optimizer._target_=torch.optim.RMSprop", "optimizer.args.alpha=0.5"]),
        plan,
        trust=True,
    )([torch.nn.Parameter(torch.zeros(1))])
    assert (found.defaults["alpha"], found.defaults["lr"]) == (0.5, plan.learning_rate)


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
