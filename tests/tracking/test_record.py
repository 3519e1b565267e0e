import pytest

from segkit.errors import RunInUseError
from segkit.runs.files import read_json
from segkit.tracking.record import Record, keep_alone


def test_each_store_has_its_own_record_and_the_last_used_is_on_top(tmp_path):
    path = tmp_path / "mlflow.json"
    Record("a", run_id="1", models={"4": "m"}).save(path)
    Record("b", run_id="2").save(path)
    assert read_json(path)["run_id"] == "2"
    assert Record.load(path, "a") == Record("a", run_id="1", models={"4": "m"})
    Record.load(path, "a").save(path)
    assert read_json(path)["run_id"] == "1"
    assert Record.load(path, "b").run_id == "2"
    assert Record.load(path, "c") == Record("c")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"uri": 3}', '{"uri": "a", "models": 3, "rewinds": "x"}', '{"elsewhere": 3}']
)
def test_a_damaged_record_is_none(tmp_path, text):
    (tmp_path / "mlflow.json").write_text(text)
    assert Record.load(tmp_path / "mlflow.json", "a") == Record("a")


def test_one_writer(tmp_path):
    with keep_alone(tmp_path), pytest.raises(RunInUseError) as refused, keep_alone(tmp_path):
        pass
    assert refused.value.exit_code == 73
