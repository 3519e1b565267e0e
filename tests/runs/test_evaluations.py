"""Results come back as they were written, and nothing else passes for one."""

import json

import pytest

from segkit.runs.evaluations import Evaluation, log_of, result_of, steps_of_results

RESULT = Evaluation(6, "ab", 0.5, {"a": 0.5, "b": None}, {"val/score": 0.5, "val/loss": float("inf")})


def test_what_is_written_comes_back(tmp_path):
    RESULT.write(tmp_path)
    nothing = Evaluation(12, "cd", None, {}, {})
    nothing.write(tmp_path)
    log_of(tmp_path, 9).touch()
    assert Evaluation.read(tmp_path, 6) == RESULT
    assert Evaluation.read(tmp_path, 12) == nothing
    assert steps_of_results(tmp_path) == [6, 12]


@pytest.mark.parametrize(
    "change", [{"step": 3}, {"step": None}, {"score": "x"}, {"per_case": [1]}, {"values": {"a": None}}, {"values": 1}]
)
def test_what_is_none_of_ours_is_refused(tmp_path, change):
    RESULT.write(tmp_path)
    path = result_of(tmp_path, 6)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=r".+"):
        Evaluation.read(tmp_path, 6)


def test_a_key_that_is_missing(tmp_path):
    result_of(tmp_path, 6).write_text('{"step": 6}')
    with pytest.raises(ValueError, match="not the result of an evaluation"):
        Evaluation.read(tmp_path, 6)
