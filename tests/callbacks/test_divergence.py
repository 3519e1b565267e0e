"""When a run has failed by itself."""

import pytest
import torch

from segkit.callbacks.divergence import FEW, Limits, nonfinite_names, too_many_left_out, weights_lost


@pytest.mark.parametrize(
    ("in_a_row", "skipped", "steps", "why"),
    [
        (1, 1, 1, None),  # the very first step is no share
        (9, 9, 9, None),
        (10, 10, 100_000, None),
        (11, 11, 100_000, "11 steps in a row"),
        (10, FEW, FEW, None),
        (1, FEW + 1, 1100, None),  # exactly the share
        (1, FEW + 1, 1099, "11 of 1099 steps"),
        (1, 101, 10_000, "101 of 10000 steps (1.0%)"),
        (1, 100, 10_000, None),
    ],
)
def test_the_rule(in_a_row: int, skipped: int, steps: int, why: str | None) -> None:
    said = Limits().exceeded(in_a_row=in_a_row, skipped=skipped, steps=steps)
    assert (said is None) == (why is None)
    assert said is None or why in said


def test_limits_can_be_lifted_and_drawn_tight() -> None:
    assert Limits(in_a_row=10**9, share=1.0).exceeded(in_a_row=500, skipped=500, steps=500) is None
    assert Limits(in_a_row=0).exceeded(in_a_row=1, skipped=1, steps=1) is not None


def test_broken_weights_are_named() -> None:
    tensors = {
        "fine": torch.tensor([1.0, -3e38]),
        "nan": torch.tensor([[0.0], [torch.nan]]),
        "inf": torch.tensor(-torch.inf),
        "half": torch.tensor([6e4], dtype=torch.float16),
        "count": torch.tensor(3),
        "empty": torch.zeros(0),
    }
    assert nonfinite_names(tensors) == ["nan", "inf"]
    assert nonfinite_names({"count": torch.tensor(3)}) == []
    assert nonfinite_names({name: tensors[name] for name in ("fine", "half", "empty")}) == []


def test_the_errors_say_where_and_what_to_do() -> None:
    ended = too_many_left_out("11 steps in a row", step=40, case_ids=["a", "b"], kept="/run/bad", broken=["w1", "w2"])
    assert ended.where == "optimizer step 40, cases a, b; batches in /run/bad"
    assert ended.why == "11 steps in a row; the weights are not finite either (w1, w2)"
    lost = weights_lost(["w1"], of=9, step=40)
    assert "NaN or infinity in 1 of 9 tensors: w1" in str(lost)
