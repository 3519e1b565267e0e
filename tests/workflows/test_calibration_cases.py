from pathlib import Path

import pytest

from segkit.data.splits import Roles
from segkit.errors import DataError, UsageError
from segkit.types import Case
from segkit.workflows.calibration_cases import choose_cases
from segkit.workflows.provenance import Model


def cases(n, *, people=None, unlabelled=()):
    """c00, c01, ...; with `people` fewer, neighbours share a person."""
    return [
        Case(
            f"c{i:02d}",
            (Path(f"c{i:02d}.png"),),
            None if i in unlabelled else Path("m.png"),
            f"c{i:02d}" if people is None else f"p{i * people // n}",
        )
        for i in range(n)
    ]


def ids(numbers):
    return tuple(f"c{i:02d}" for i in numbers)


def model(name, *, train, tuning, test, copies=None, held_out=()):
    """A model whose seen cases have their own names for contents, but for `copies`."""
    seen = (*ids(train), *ids(tuning))
    contents = {case_id: case_id for case_id in seen} | (copies or {})
    return Model(name, Roles(ids(train), ids(tuning), ids(test), contents, held_out=ids(held_out)))


def choose(data, models, **keys):
    return choose_cases(
        data, models, lambda case: case.case_id, **{"fit": "tuning", "test": "test", "members": "all"} | keys
    )


def fitted(chosen):
    return {case.case_id: places for case, places in chosen.fit}


def tries(chosen):
    return tuple(case.case_id for case in chosen.test)


ONE = {"train": range(10), "tuning": range(10, 22), "test": range(22, 26)}


def test_one_run_fits_on_its_tuning_cases_and_tests_on_its_test_cases():
    for members in ("all", "out_of_fold"):
        chosen = choose(cases(30), [model("a", **ONE)], members=members)
        assert fitted(chosen) == dict.fromkeys(ids(range(10, 22)), (0,))
        assert tries(chosen) == ids(range(22, 26))
        assert "selected on them" in chosen.note


def test_people_without_a_role_fit_or_test():
    data = cases(40)
    chosen = choose(data, [model("a", **ONE)], fit="unassigned")
    assert tuple(fitted(chosen)) == ids(range(26, 40))
    assert tries(chosen) == ids(range(22, 26))
    chosen = choose(data, [model("a", **ONE)], test="unassigned")
    assert tuple(fitted(chosen)) == ids(range(10, 22))
    assert tries(chosen) == ids(range(26, 40))
    with pytest.raises(UsageError, match="the same cases"):
        choose(data, [model("a", **ONE)], fit="unassigned", test="unassigned")


def test_people_held_out_by_the_split_fit_or_test_as_those_without_a_role():
    data = cases(40)
    some, all_of_them = (model("a", **ONE, held_out=range(26, last)) for last in (30, 40))
    for held in (some, all_of_them):
        assert choose(data, [held], fit="unassigned") == choose(data, [model("a", **ONE)], fit="unassigned")
        assert tries(choose(data, [held], test="unassigned")) == ids(range(26, 40))
    # Held out by one model and trained on by another is neither.
    other = model("b", train=[*range(10), 26, 27], tuning=range(10, 22), test=range(22, 26))
    assert tries(choose(data, [some, other], test="unassigned")) == ids(range(28, 40))


def test_somebody_whose_other_case_was_seen_has_a_role():
    """c25 (test) and c26 (no role) are one person of the twenty."""
    chosen = choose(
        cases(60, people=20), [model("a", train=range(12), tuning=range(12, 24), test=(24, 25))], fit="unassigned"
    )
    assert tuple(fitted(chosen)) == ids(range(27, 60))


def test_nine_cases_are_too_few():
    nine = model("a", train=range(10), tuning=range(10, 19), test=range(22, 26))
    with pytest.raises(DataError, match="10 cases or more") as raised:
        choose(cases(30), [nine])
    assert "there are 9" in str(raised.value)
    assert raised.value.exit_code == 65


def test_without_a_test_case_nothing_is_fitted():
    with pytest.raises(DataError, match="no case to try"):
        choose(cases(30), [model("a", train=range(10), tuning=range(10, 22), test=())])


def test_seeds_of_one_split_are_averaged():
    chosen = choose(cases(30), [model("a", **ONE), model("b", **ONE)])
    assert set(fitted(chosen).values()) == {(0, 1)}
    assert tries(chosen) == ids(range(22, 26))


FOLDS = [
    model("fold0", train=range(20, 40), tuning=range(10, 20), test=range(10)),
    model("fold1", train=[*range(10), *range(30, 40)], tuning=range(20, 30), test=range(10, 20)),
    model("fold2", train=range(20), tuning=range(30, 40), test=range(20, 30)),
]


def test_folds_are_refused_by_model_and_case():
    with pytest.raises(DataError, match="trained on") as raised:
        choose(cases(60), FOLDS)
    assert "model fold1, case c00" in str(raised.value)
    assert "members=out_of_fold" in str(raised.value)


def test_folds_out_of_fold_are_tried_on_people_who_were_held_out():
    chosen = choose(cases(60), FOLDS, members="out_of_fold", test="unassigned")
    expected = {case_id: (0,) for case_id in ids(range(10))} | {case_id: (0, 1) for case_id in ids(range(10, 20))}
    expected |= {case_id: (1, 2) for case_id in ids(range(20, 30))} | {case_id: (2,) for case_id in ids(range(30, 40))}
    assert fitted(chosen) == expected
    assert tries(chosen) == ids(range(40, 60))
    assert "out of fold" in chosen.note
    with pytest.raises(DataError, match="no case to try"):
        choose(cases(60), FOLDS, members="out_of_fold")


def test_one_models_test_case_is_no_other_models_tuning_case():
    other = model("b", train=range(10), tuning=range(14, 26), test=range(10, 14))
    with pytest.raises(DataError, match="selected on") as raised:
        choose(cases(30), [model("a", **ONE), other])
    assert "tried" in str(raised.value)
    assert "model a, case c10" in str(raised.value)


@pytest.mark.parametrize(
    ("copy", "words"),
    [
        ({"c03": "c15"}, ("fitted", "trained", "case c15")),
        ({"c03": "c24"}, ("tried", "trained", "case c24")),
        ({"c15": "c24"}, ("tried", "selected", "case c24")),
    ],
)
def test_contents_tell_whatever_the_names_are(copy, words):
    with pytest.raises(DataError) as raised:
        choose(cases(30), [model("a", **ONE, copies=copy)])
    assert all(word in str(raised.value) for word in words)


def test_cases_that_are_gone_are_named():
    with pytest.raises(DataError, match="no label") as raised:
        choose(cases(30, unlabelled=(23,)), [model("a", **ONE)])
    assert "c23" in str(raised.value)
    with pytest.raises(DataError, match="no image") as raised:
        choose(cases(21), [model("a", **ONE)])
    assert "run a" in str(raised.value)


def test_one_person_is_not_on_both_sides():
    """The runs were made before anybody knew that c21 and c22 are one person."""
    data = [*cases(30)]
    data[21] = Case("c21", data[21].images, data[21].label, "same")
    data[22] = Case("c22", data[22].images, data[22].label, "same")
    with pytest.raises(DataError, match="one person") as raised:
        choose(data, [model("a", **ONE)])
    assert "c21" in str(raised.value)
    assert "c22" in str(raised.value)
