"""Tensors that claim more numbers than they hold, wherever they lie; and those that do not."""

import re

import pytest
import torch

from segkit.ops.dense import require_dense

SPARSE = torch.eye(3).to_sparse()
ONE = torch.zeros(1)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"a": ONE.expand(2**40)}, "a (1099511627776,)"),
        ({"a": {"b": [torch.ones(2), (ONE.expand(2, 1),)]}}, "a.b.1.0 (2, 1)"),
        ({3: torch.empty(2, device="meta")}, "3 (2,)"),
        ([SPARSE], "0 (3, 3)"),
        ({"a": {ONE.expand(5)}}, "a.0 (5,)"),
        (ONE.expand(2), "it (2,)"),
    ],
    ids=["stride 0", "within", "without storage", "sparse", "in a set", "alone"],
)
def test_what_is_not_all_there_is_named_by_its_keys(value, name) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(name)} is no dense tensor"):
        require_dense(value)


def test_parts_and_orders_of_a_storage_are_all_there() -> None:
    whole = torch.arange(12.0).view(3, 4)
    require_dense({"part": whole[1:, ::2], "turned": whole.T, "empty": torch.zeros(0), "scalar": torch.tensor(1)})
    require_dense({"one row": whole.flatten().expand(1, -1), "text": "x", 1: None})


def test_circles_repetition_and_depth_come_to_an_end() -> None:
    """2^60 leaves by repetition, a list in itself, and deeper than Python calls itself."""
    laughs: list = []
    for _ in range(60):
        laughs = [laughs, laughs]
    circle: dict = {}
    circle["itself"] = [circle]
    deep: list = [ONE.expand(2)]
    for _ in range(10_000):
        deep = [deep]
    require_dense([laughs, circle])
    with pytest.raises(ValueError, match="no dense tensor"):
        require_dense(deep)
