import json

import pytest
from tests.evaluation_tables import write_tables

from segkit.errors import DataError
from segkit.evaluation import EvaluationSettings
from segkit.evaluation.same_cases import inference_notes, require_same_cases
from segkit.evaluation.stored_table import read_table
from segkit.metrics.composite import CompositeSettings
from segkit.metrics.lesion import LesionSettings

DICE = {f"c{k}": (0.5, 0.75) for k in range(4)}


@pytest.fixture
def make(tmp_path):
    """Factory: the table of an evaluation."""

    def tables(name, dice=None, **keys):
        return read_table(write_tables(tmp_path / name, dice or DICE, **keys))

    return tables


def test_the_same_cases_in_another_order_and_other_results(make):
    backwards = {case: (0.1, 0.2) for case in reversed(DICE)}
    require_same_cases([make("a"), make("b", backwards), make("c")])


def test_other_cases_are_named_with_the_table_that_has_them(make):
    fewer = {case: DICE[case] for case in ("c0", "c1")} | {"x": (0.5, 0.5)}
    with pytest.raises(DataError, match=r"different test sets[\s\S]*a: 2 cases, c2, c3; [\s\S]*b: 1 cases, x"):
        require_same_cases([make("a"), make("b", fewer)])


def test_a_third_table_is_held_against_the_first(make):
    with pytest.raises(DataError, match="different test sets"):
        require_same_cases([make("a"), make("b"), make("c", {"c0": (0.5, 0.5)})])


def test_other_classes(make):
    with pytest.raises(DataError, match=r"different classes[\s\S]*front, back and front, top"):
        require_same_cases([make("a"), make("b", classes=("front", "top"))])


def test_other_people(make):
    with pytest.raises(DataError, match=r"different people[\s\S]*case c2[\s\S]*'c2' and 'p'"):
        require_same_cases([make("a"), make("b", people={"c2": "p"})])


def test_another_truth(make):
    table = make("b")
    path = table.folder / "per_case.csv"
    path.write_text(path.read_text().replace("c1,c1,back,0.75,0.6,0.75,0.75,750,250,250,1000", "c1,c1,back" + ",1" * 8))
    with pytest.raises(DataError, match=r"different labels[\s\S]*case c1, class back[\s\S]*1000 and 1 voxels; 1 cases"):
        require_same_cases([make("a"), read_table(table.folder)])


def test_other_rules_of_one_topic_are_refused_and_a_topic_of_one_side_is_not(make):
    of_lesions = EvaluationSettings(composite=CompositeSettings(level="voxel"), lesion=LesionSettings())
    first, second = make("a"), make("b", settings=of_lesions)
    require_same_cases([first, second])
    for topic, refused in (("undefined", True), ("interval", False), ("new", False)):
        stored = json.loads((first.folder / "summary.json").read_text())
        stored["rules"][topic] = "as we please"
        (second.folder / "summary.json").write_text(json.dumps(stored))
        if refused:
            with pytest.raises(DataError, match=r"different rules[\s\S]*as we please"):
                require_same_cases([first, read_table(second.folder)])
        else:
            require_same_cases([first, read_table(second.folder)])


def test_another_way_to_the_prediction_is_told(make):
    tables = [make("a"), make("b", settings=EvaluationSettings(mirror_axes=(0, 1)))]
    require_same_cases(tables)
    assert inference_notes(tables) == ["axes mirrored and averaged over differ: a [], b [0, 1]"]
    assert inference_notes([tables[0], make("c")]) == []
