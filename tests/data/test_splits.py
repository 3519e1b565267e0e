import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.data.splits import Roles, assert_disjoint, assign_roles
from segkit.errors import DataError, UsageError
from segkit.types import Case


def _cases(people, each=1):
    return [
        Case(f"c{p:03d}_{k}", (Path("x"),), Path("y"), f"p{p:03d}")
        for p in range(people)
        for k in range(1 + (p % each))
    ]


def _people(cases, ids):
    return {case.group for case in cases if case.case_id in ids}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    people=st.integers(3, 60),
    each=st.integers(1, 3),
    folds=st.integers(2, 10),
    tuning=st.sampled_from([0, 0.15, 0.5, 0.9, "equal"]),
    seed=st.integers(0, 2**32),
)
def test_roles_are_disjoint_by_group_and_complete_and_every_group_is_tested_once(people, each, folds, tuning, seed):
    cases = _cases(people, each)
    tested = []
    k = min(folds, people)
    for fold in range(k):
        roles = assign_roles(cases, folds=folds, fold=fold, tuning=tuning, seed=seed)
        parts = [_people(cases, ids) for ids in (roles.train, roles.tuning, roles.test)]
        assert sum(map(len, parts)) == people == len(set.union(*parts))
        assert len(roles.train) + len(roles.tuning) + len(roles.test) == len(cases)
        assert parts[0], "somebody is left to train on"
        assert parts[2]
        if people - len(parts[2]) > 1:
            assert bool(parts[1]) == (tuning != 0)
        assert people // k <= len(parts[2]) <= -(-people // k)
        tested += parts[2]
    assert sorted(tested) == sorted({case.group for case in cases})


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    people=st.integers(6, 40),
    folds=st.integers(2, 6),
    held_out=st.sampled_from([1, 2, 3, 0.05, 0.2, 0.45]),
    seed=st.integers(0, 2**32),
)
def test_all_folds_hold_out_the_same_people_and_deal_the_others(people, folds, held_out, seed):
    cases = _cases(people, 2)
    wanted = held_out if held_out >= 1 else max(1, round(held_out * people))
    first = assign_roles(cases, folds=folds, held_out=held_out, seed=seed)
    apart = _people(cases, first.held_out)
    assert len(apart) == wanted
    tested = []
    for fold in range(min(folds, people - wanted)):
        for tuning in (0, 0.15, "equal"):
            roles = assign_roles(cases, folds=folds, fold=fold, tuning=tuning, held_out=held_out, seed=seed)
            assert roles.held_out == first.held_out
            parts = [_people(cases, ids) for ids in (roles.train, roles.tuning, roles.test, roles.held_out)]
            assert sum(map(len, parts)) == people == len(set.union(*parts))
            assert all((parts[0], parts[2]))
        tested += parts[2]
    assert sorted([*tested, *apart]) == sorted({case.group for case in cases})


def test_more_held_out_are_the_same_people_and_more():
    cases = _cases(20)
    dealt = [set(assign_roles(cases, held_out=count, seed=3).held_out) for count in (1, 2, 5, 11, 17)]
    assert all(fewer < more for fewer, more in pairwise(dealt))


def _numbers(*parts):
    return [[int(case_id[1:4]) for case_id in ids] for ids in parts]


@pytest.mark.parametrize(
    ("fold", "keys", "train", "tuning", "test", "held_out"),
    [
        # Dealt by segkit 0.1.0, before anybody could be held out.
        (0, {}, [1, 2, 3, 4, 6, 7, 8, 9, 10], [0], [5, 11], []),
        (1, {}, [2, 3, 4, 5, 7, 8, 10, 11], [1], [0, 6, 9], []),
        (3, {"held_out": 0}, [0, 1, 3, 5, 6, 8, 9, 11], [7], [2, 4, 10], []),
        (4, {"held_out": 0.0}, [0, 1, 2, 4, 6, 8, 9, 10, 11], [5], [3, 7], []),
        (2, {"folds": 3, "tuning": "equal", "seed": 7}, [0, 3, 4, 7], [1, 6, 8, 11], [2, 5, 9, 10], []),
        # By hand: the seed's order is 5 11 0 | 6 9 1 | 8 4 2 | 10 7 3, of which the first part is held out.
        (0, {"folds": 3, "held_out": 3}, [2, 3, 4, 7, 10], [8], [1, 6, 9], [0, 5, 11]),
        (2, {"folds": 3, "held_out": 0.25}, [1, 2, 4, 8, 9], [6], [3, 7, 10], [0, 5, 11]),
    ],
)
def test_frozen_deals(fold, keys, train, tuning, test, held_out):
    roles = assign_roles(_cases(12), fold=fold, **keys)
    assert _numbers(roles.train, roles.tuning, roles.test, roles.held_out) == [train, tuning, test, held_out]


def test_the_order_is_philox_of_the_seed():
    """What the frozen lists above are cut from: key = seed, counter = (0, 0, 0, 3)."""
    bits = np.random.Philox(key=12345, counter=np.array([0, 0, 0, 3], dtype=np.uint64))
    order = np.random.Generator(bits).permutation(12).tolist()
    assert order == [5, 11, 0, 6, 9, 1, 8, 4, 2, 10, 7, 3]
    (held,) = _numbers(assign_roles(_cases(12), held_out=4).held_out)
    assert held == sorted(order[:4])


@pytest.mark.parametrize(
    ("held_out", "message"),
    [(8, "too few people"), (40, "too few people"), (0.9, "too few"), (-1, "share"), (1.5, "whole")],
)
def test_who_cannot_be_held_out(held_out, message):
    with pytest.raises(UsageError, match=message) as caught:
        assign_roles(_cases(10), held_out=held_out)
    assert "data.split.held_out" in caught.value.where
    assert assign_roles(_cases(10), held_out=7).train


@pytest.mark.parametrize(
    ("people", "tuning", "expected"),
    [
        (40, 0.15, (27, 5, 8)),  # 15 % of 32 is 4.8
        (20, 0.15, (12, 4, 4)),  # at least 4
        (19, 0.15, (14, 1, 4)),  # 15 are left: 1
        (3, 0.15, (1, 1, 1)),
        (40, "equal", (24, 8, 8)),
        (40, 0, (32, 0, 8)),
    ],
)
def test_how_many(people, tuning, expected):
    roles = assign_roles(_cases(people), tuning=tuning, seed=1)
    assert (len(roles.train), len(roles.tuning), len(roles.test)) == expected


def test_the_seed_and_nothing_else_deals():
    cases = _cases(30)
    assert assign_roles(cases, seed=5) == assign_roles(cases[::-1], seed=5)
    assert assign_roles(cases, seed=5).test != assign_roles(cases, seed=6).test
    # The test part does not depend on how many select.
    assert assign_roles(cases, seed=5, tuning=0).test == assign_roles(cases, seed=5, tuning="equal").test


def test_too_few_people_and_folds_that_are_not_there():
    with pytest.raises(DataError, match="too few people") as caught:
        assign_roles(_cases(2, 2) * 1, seed=0)
    assert caught.value.exit_code == 65
    for fold, folds in ((5, 5), (3, 5), (-1, 5), (0, 1)):
        with pytest.raises(UsageError, match="fold"):
            assign_roles(_cases(3 if fold == 3 else 10), fold=fold, folds=folds, seed=0)
    with pytest.raises(UsageError, match="share"):
        assign_roles(_cases(10), tuning=1.0, seed=0)


def test_roles_of_a_run_from_before_there_was_the_key():
    old = assign_roles(_cases(10), seed=0).to_json()
    assert old.pop("held_out") == []
    assert Roles.from_json(old) == assign_roles(_cases(10), seed=0)
    assert Roles.from_json(old).held_out == ()


def test_json_round_trip_with_hashes():
    roles = assign_roles(_cases(10), seed=0, held_out=2)
    hashes = {case.case_id: f"hash of {case.case_id}" for case in _cases(10)}
    filled = roles.with_hashes(hashes)
    assert set(filled.content_hashes) == set(roles.train) | set(roles.tuning)
    again = Roles.from_json(json.loads(json.dumps(filled.to_json())))
    assert again == filled
    assert again.role_of_content(hashes[roles.train[0]]) == "train"
    assert again.name_of_content(hashes[roles.train[0]]) == roles.train[0]
    assert again.role_of_content(hashes[roles.test[0]]) is None
    assert again.role_of_content(hashes[roles.held_out[0]]) is None
    assert again.role(roles.held_out[0]) == "held_out"
    assert again.role(roles.tuning[0]) == "tuning"
    assert again.role("nobody") is None


def test_json_round_trip_of_what_was_annotated():
    roles = assign_roles(_cases(10), seed=0)
    assert roles.annotated is None
    for annotated in ({}, {roles.train[0]: ("ball", "cube")}):
        filled = replace(roles, annotated=annotated)
        assert Roles.from_json(json.loads(json.dumps(filled.to_json()))) == filled
    old = roles.to_json()
    del old["annotated"]
    assert Roles.from_json(old) == roles


def test_roles_of_a_file(tmp_path):
    cases = _cases(10)
    ids = [case.case_id for case in cases]
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": ids[:5], "tuning": ids[5:7], "test": ids[7:]}))
    assert assign_roles(cases, seed=0, file=path) == Roles(tuple(ids[:5]), tuple(ids[5:7]), tuple(ids[7:]))
    table = tmp_path / "split.csv"
    table.write_text("case,role\n" + "".join(f"{i},{'test' if i == ids[0] else 'train'}\n" for i in ids))
    assert assign_roles(cases, seed=0, file=table).test == (ids[0],)


@pytest.mark.parametrize("name", ["split.json", "split.csv"])
def test_a_file_names_who_is_held_out(tmp_path, name):
    ids = [case.case_id for case in _cases(6)]
    named = {"train": ids[:3], "test": ids[3:4], "held_out": ids[4:]}
    rows = "".join(f"{i},{role}\n" for role, of in named.items() for i in of)
    path = tmp_path / name
    path.write_text(json.dumps(named) if name.endswith("json") else f"case,role\n{rows}")
    assert assign_roles(_cases(6), file=path).held_out == tuple(ids[4:])
    with pytest.raises(UsageError, match="file of roles") as caught:
        assign_roles(_cases(6), file=path, held_out=2)
    assert caught.value.exit_code == 2


def test_splits_of_nnunet_keep_val_for_the_test(tmp_path):
    cases = _cases(25)
    ids = [case.case_id for case in cases]
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([{"train": ids[5:], "val": ids[:5]}, {"train": ids[:20], "val": ids[20:]}]))
    roles = assign_roles(cases, seed=0, fold=1, file=path)
    assert roles.test == tuple(ids[20:])
    assert sorted(roles.train + roles.tuning) == ids[:20]
    assert len(roles.tuning) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"train": ["c000_0", "gone"]}', "not there"),
        ('{"test": ["c000_0"]}', "understood"),
        ('{"train": [], "test": ["c000_0"]}', "nobody"),
        ("[]", "understood"),
        ("{", "understood"),
        ('{"train": ["c001_0"], "test": ["c001_0"]}', "two roles"),
        ('{"train": ["c001_0"], "test": ["c001_1"]}', "one person is in two roles"),
        ('{"train": ["c001_0"], "held_out": ["c001_1"]}', "one person is in two roles"),
        ('{"train": ["c001_0"], "test": ["c000_0"], "held_out": ["c000_0"]}', "two roles"),
        ('{"train": ["c001_0"], "held_out": ["gone"]}', "not there"),
        ('{"train": ["c001_0"], "held_out": ["c000_0", "c000_0"]}', "twice"),
    ],
)
def test_bad_files_of_roles(tmp_path, content, message):
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        assign_roles(_cases(5, 2), seed=0, file=path)


def test_a_shared_person_is_named():
    cases = _cases(4, 2)
    roles = Roles(("c001_0",), ("c000_0",), ("c001_1",))
    with pytest.raises(DataError, match="one person") as caught:
        assert_disjoint(roles, cases)
    assert "p001" in caught.value.where
    assert "c001_0 is in train, case c001_1 in test" in caught.value.why


def test_a_file_of_roles_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="not there"):
        assign_roles(_cases(5), seed=0, file=tmp_path / "gone.json")
