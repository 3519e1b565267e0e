from dataclasses import replace

import pytest
import torch

from segkit.configuration import build_loss, build_network, build_optimizer, build_recipe, build_scheduler, compose
from segkit.errors import UsageError


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
