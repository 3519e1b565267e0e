"""The line about a batch, who is blamed among ranks, and the file."""

import math

import pytest
import torch

from segkit.callbacks.skipped_step import Offence, culprit, listed, offence, save_batch
from segkit.types import Batch, Target


def batch(*values: float) -> Batch:
    image = torch.tensor(values).reshape(1, 1, -1)
    return Batch(image, Target(torch.zeros_like(image, dtype=torch.int64), spacing=(2.0,)), None, ("p1",), (7,))


def test_statistics_are_of_the_finite_values() -> None:
    found = offence(batch(1.0, math.nan, 3.0, math.inf, 5.0), 0.5)
    assert (found.mean, found.minimum, found.maximum, found.nonfinite, found.values) == (3.0, 1.0, 5.0, 2, 5)
    assert found.std == pytest.approx(math.sqrt(8 / 3))
    assert found.evident
    assert found.line == (
        "a gradient that is not finite at loss 0.5; cases p1 (n 7-7); "
        "image: mean 3, std 1.633, min 1, max 5, 2 of 5 values are not finite"
    )


def test_an_image_without_one_finite_value_still_has_a_line() -> None:
    found = offence(batch(math.nan, math.nan), math.nan)
    assert math.isnan(found.mean)
    assert "loss nan" in found.line
    assert "2 of 2 values are not finite" in found.line


def found(case: str, *, loss: float = 0.5) -> Offence:
    return Offence((case,), (0,), loss, 0.0, 1.0, -1.0, 1.0, 0, 8)


def test_a_rank_that_betrays_itself_is_blamed_before_those_that_have_only_the_gradient() -> None:
    ranks = [(found("a"), ("a",)), (found("b", loss=math.nan), ("b", "c")), (None, ("d",))]
    guilty = culprit(ranks)
    assert (guilty.rank, guilty.case_ids) == (1, ("b", "c"))
    assert guilty.line.endswith("; its step also used cases c")


def test_where_none_betrays_itself_all_that_have_the_gradient_come_into_question() -> None:
    guilty = culprit([(None, ("z",)), (found("a"), ("a",)), (found("b"), ("b",))])
    assert (guilty.rank, guilty.case_ids) == (1, ("a", "b"))


def test_names_are_listed_once_and_many_are_cut() -> None:
    assert listed(["a", "b", "a"]) == "a, b"
    assert listed([str(i) for i in range(5)], most=3) == "0, 1, 2 and 2 more"


def test_a_file_holds_the_batch_and_only_the_batch(tmp_path) -> None:
    whole = torch.randn(1000, 1, 1, 4)
    view = Batch(whole[5], Target(torch.zeros(1, 1, 4, dtype=torch.int64)), None, ("p",), (5,))
    assert save_batch(tmp_path / "new" / "step.pt", view, step=3, loss=1.5)
    assert (tmp_path / "new" / "step.pt").stat().st_size < 10_000
    loaded = torch.load(tmp_path / "new" / "step.pt", weights_only=True)
    assert torch.equal(loaded["image"], whole[5])
    assert loaded.keys() == {"image", "target", "case_id", "n", "step", "loss"}
    assert save_batch(tmp_path / "spaced.pt", batch(1.0), step=1, loss=0.0)
    assert torch.load(tmp_path / "spaced.pt", weights_only=True)["target"]["spacing"] == [2.0]


def test_a_full_disk_is_a_warning(tmp_path, monkeypatch, caplog) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert not save_batch(tmp_path / "step.pt", batch(1.0), step=1, loss=0.0)
    assert "No space left on device" in caplog.text
    assert list(tmp_path.iterdir()) == []
