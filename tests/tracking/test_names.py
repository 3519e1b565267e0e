"""Names that MLflow takes, different ones for different keys."""

import re

from hypothesis import given
from hypothesis import strategies as st

from segkit.tracking.names import KEY_LENGTH, VALUE_LENGTH, by_epoch, flat, plain_key


@given(st.text(min_size=1, max_size=400))
def test_every_key_is_taken_by_mlflow(key: str) -> None:
    plain = plain_key(key)
    assert re.fullmatch(r"[\w\-. :/]{1,250}", plain, flags=re.ASCII)
    assert len(plain) <= KEY_LENGTH
    assert plain_key(plain) == plain


@given(st.text(min_size=1), st.text(min_size=1))
def test_different_keys_stay_different(a: str, b: str) -> None:
    assert (plain_key(a) == plain_key(b)) == (a == b) or plain_key(a) == b or plain_key(b) == a


def test_usual_keys_stay_as_they_are() -> None:
    for key in ("val/dice/left ventricle", "train/loss", "data.split.tuning"):
        assert plain_key(key) == key
    assert plain_key("val/dice/x@y") != plain_key("val/dice/xy")


def test_flat() -> None:
    config = {"a": {"b": 1, "c": {"d": None, "e": [1, "x"]}}, "f": True, "g": "text", "h": {}}
    assert flat(config) == {"a.b": "1", "a.c.d": "null", "a.c.e": '[1, "x"]', "f": "true", "g": "text"}
    assert len(flat({"a": "x" * 10_000})["a"]) == VALUE_LENGTH


def test_one_unit_a_key() -> None:
    assert all(map(by_epoch, ("val/score", "train/loss_epoch", "time/epoch_s", "selected/score")))
    assert not any(map(by_epoch, ("train/loss", "lr", "input/mean")))
