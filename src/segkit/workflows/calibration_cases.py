"""Which cases a temperature is fitted on and which it is tried on: none that a model has learnt from."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from segkit.data.splits import OF_A_FOLD, Role
from segkit.errors import DataError, UsageError
from segkit.types import Case
from segkit.workflows.provenance import Model, Sighting, seen_by

Fit: TypeAlias = Literal["tuning", "unassigned"]
Test: TypeAlias = Literal["test", "unassigned"]
Averaged: TypeAlias = Literal["all", "out_of_fold"]

MIN_CASES = 10
"""Below this many fitting cases the temperature is mostly theirs, not the model's."""

NOTES: dict[Fit, str] = {
    "tuning": "tuning cases: the weights were not trained on them, but the checkpoint was selected on them",
    "unassigned": "cases of people that no model was trained, selected or to be tested on",
}
OUT_OF_FOLD = "cases out of fold: tuning or test cases of a model, each predicted by the models not trained on it"


@dataclass(frozen=True)
class CalibrationCases:
    """What `choose_cases` settles on.

    Args:
        fit: Each fitting case with the places of the models that predict it.
        test: Cases that neither a model nor the temperature has seen.
        note: What kind of cases the fitting cases are.
    """

    fit: tuple[tuple[Case, tuple[int, ...]], ...]
    test: tuple[Case, ...]
    note: str


def choose_cases(
    cases: Sequence[Case],
    models: Sequence[Model],
    content: Callable[[Case], str],
    *,
    fit: Fit,
    test: Test,
    members: Averaged,
) -> CalibrationCases:
    """Sort the cases of a data set into those that fit, those that test, and those that are not touched.

    Test cases are in the test part of a model and in the training or tuning part of none. Fitting cases are, under
    `members=all`, in the tuning part of a model and in the training part of none; all models are averaged there, as
    they will be on new images. Under `members=out_of_fold` they are all cases out of the training part of some model,
    averaged over these models only: what five folds need, which leave no case that all of them have not trained on.
    `unassigned` means cases of people none of whose cases trains, tunes or tests any model: people who came later, and
    those held out by `data.split.held_out`. To a temperature the two are the same; only a split tells them apart.

    Args:
        cases: Of the data set.
        models: Members of the ensemble, or the one model.
        content: Content hash of the images of a case; asked of cases that may be chosen only.
        fit: Which cases fit.
        test: Which cases test.
        members: Which models predict a fitting case.

    Raises:
        UsageError: `unassigned` for both.
        DataError: A case that a model has seen, by name or by content, naming both; too few cases; cases that are
            missing or have no label; a person on both sides.
    """
    if fit == test:
        why = "the people without a role cannot both fit the temperature and try it"
        raise UsageError("fit and test are the same cases", where=f"fit={fit} test={test}", why=why, mend="fit=tuning")
    roles = {case.case_id: [model.roles.role(case.case_id) for model in models] for case in cases}
    fitting: set[Role] = set() if fit == "unassigned" else {"tuning"} if members == "all" else {"tuning", "test"}
    named: set[Role] = {"test"} if test == "test" else set()
    _require_there(cases, models, fitting | named)
    known = {case.group for case in cases if set(OF_A_FOLD) & set(roles[case.case_id])}
    labelled = [case for case in cases if case.label is not None]
    free = [case for case in labelled if case.group not in known]
    tests = free if test == "unassigned" else [case for case in labelled if "test" in roles[case.case_id]]
    if members == "out_of_fold":
        tests = [case for case in tests if not {"train", "tuning"} & set(roles[case.case_id])]
    tested = {case.case_id for case in tests}
    fits = free if fit == "unassigned" else [case for case in labelled if fitting & set(roles[case.case_id])]
    fits = [case for case in fits if case.case_id not in tested]
    by = {case.case_id: _predicting(roles[case.case_id], members) for case in fits}
    everywhere = dict.fromkeys(tested, tuple(range(len(models))))
    _refuse_seen(_seen(tests, models, content, everywhere, ("train", "tuning")), models, act="tried")
    _refuse_seen(_seen(fits, models, content, by, ("train",)), models, act="fitted")
    _refuse_few(fits, tests, fit=fit, test=test, members=members)
    _refuse_shared(fits, tests)
    note = OUT_OF_FOLD if len(models) > 1 and len(fitting) > 1 else NOTES[fit]
    return CalibrationCases(tuple((case, by[case.case_id]) for case in fits), tuple(tests), note)


def _predicting(roles: Sequence[Role | None], members: Averaged) -> tuple[int, ...]:
    """Places of the models that predict a fitting case of these roles."""
    return tuple(place for place, role in enumerate(roles) if members == "all" or role != "train")


def _require_there(cases: Sequence[Case], models: Sequence[Model], wanted: Iterable[Role]) -> None:
    there = {case.case_id for case in cases if case.label is not None}
    for role in sorted(wanted):
        for model in models:
            missing = [case_id for case_id in model.roles.of(role) if case_id not in there]
            if missing:
                why = f"{len(missing)} of {len(model.roles.of(role))}, such as {', '.join(missing[:3])}"
                what = f"{role} cases have no image or no label there"
                mend = "data.root=<where the data set lies now>"
                raise DataError(what, where=f"run {model.name}", why=why, mend=mend)


def _refuse_few(fits: Sequence[Case], tests: Sequence[Case], *, fit: Fit, test: Test, members: Averaged) -> None:
    if len(fits) < MIN_CASES:
        raise DataError(
            f"a temperature is fitted on {MIN_CASES} cases or more",
            where=f"fit={fit} members={members}",
            why=f"there are {len(fits)}",
            mend="train with a larger data.split.tuning, or fit=unassigned with cases that no model has seen",
        )
    if not tests:
        raise DataError(
            "there is no case to try the calibration on",
            where=f"test={test} members={members}",
            why="every case was in the training or tuning part of a model, or has no label",
            mend="test=unassigned with people who were held out before: data.split.held_out",
        )


def _seen(
    cases: Sequence[Case],
    models: Sequence[Model],
    content: Callable[[Case], str],
    by: dict[str, tuple[int, ...]],
    roles: tuple[Role, ...],
) -> list[Sighting]:
    """Every case that one of its models has seen in one of these roles, by the content of its images."""
    found: list[Sighting] = []
    for case in cases:
        predicting = [models[place] for place in by[case.case_id]]
        found += [one for one in seen_by(predicting, {case.case_id: content(case)}) if one.role in roles]
    return found


def _refuse_seen(seen: Sequence[Sighting], models: Sequence[Model], *, act: str) -> None:
    if not seen:
        return
    first = seen[0]
    mend = "take these copies out of the data set"
    if len(models) > 1:
        mend = "members=out_of_fold for the folds of one data set; else runs that share their tuning and test people"
    more = f", and {len(seen) - 3} more" if len(seen) > 3 else ""
    raise DataError(
        f"a calibration is not {act} on cases that a model was {'trained' if first.role == 'train' else 'selected'} on",
        where=f"model {first.model}, case {first.case_id}",
        why=", ".join(map(str, seen[:3])) + more,
        mend=mend,
    )


def _refuse_shared(fits: Sequence[Case], tests: Sequence[Case]) -> None:
    fitting = {case.group: case.case_id for case in fits}
    for case in tests:
        if case.group in fitting:
            raise DataError(
                "one person would both fit the temperature and try it",
                where=f"group {case.group}",
                why=f"case {fitting[case.group]} fits, case {case.case_id} tests",
                mend="runs whose roles were dealt by the same groups",
            )
