import pytest

from segkit.runs.directory import RunDirectory
from segkit.tracking.facts import DataFacts, Facts, Rewind, begin_life, load_facts


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "run").create()


def test_lives_add_up_and_the_first_params_stay(run):
    one, two = DataFacts("d", "1", "/d", "training"), DataFacts("d", "2", "/d", "training")
    first = begin_life(run, {"a": 1, "b": 2}, store="sqlite:////x", experiment="e", tags={"host": "x"}, data=[one])
    assert (first.lives, first.params, first.drift) == (1, {"a": "1", "b": "2"}, {})
    second = begin_life(run, {"a": 5, "b": 2, "c": 3}, tags={"host": "y"}, data=[one, two], rewind=Rewind(4, 2, 8))
    assert second.id == first.id
    assert (second.lives, second.params, second.drift) == (2, first.params, {"a": "5", "c": "3"})
    assert (second.store, second.experiment, second.tags) == ("sqlite:////x", "e", {"host": "y"})
    assert (second.data, second.rewinds) == ((one, two), (Rewind(4, 2, 8),))
    third = begin_life(run, {"a": 1, "b": 2})
    assert third.drift == second.drift  # a part of the training was under other settings: that stays said
    assert load_facts(run) == third


@pytest.mark.parametrize(
    "text", [None, "", "{}", "[1]", '{"id": "x", "data": [{"name": 1}]}', '{"id": "x", "params": 3}']
)
def test_without_facts_the_configuration_speaks(run, text):
    assert load_facts(run) == Facts()
    run.save_config({"a": {"b": 1}})
    if text is not None:
        run.tracking.write_text(text)
    assert load_facts(run) == Facts(params={"a.b": "1"})
