"""`evaluate postprocess=fit`: rules fitted on what was scored. `postprocess=stored`: rules that are there, to be tried.

What rules are fitted on is no test of them. Those of one run are fitted on its tuning cases and tried on its test
cases; those of the mean of the folds of a cross-validation are fitted on the test cases of the folds and tried on the
people held out from all of them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit.errors import DataError, UsageError
from segkit.evaluation.native import Average
from segkit.evaluation.postprocessing_fit import PostProcessingFit
from segkit.evaluation.prediction_regions import Regions
from segkit.ops.connected_components import size_unit
from segkit.runs.postprocessing import FILE, HOW_TO_FIT, StoredPostProcessing, fit_command
from segkit.workflows.fitting_postprocessing import fit_postprocessing
from segkit.workflows.loading import TrainedRun, models_of
from segkit.workflows.members import Members
from segkit.workflows.postprocessing import NONE, STORED, postprocessing_for, stored_path
from segkit.workflows.provenance import SEEN

FIT = "fit"
TUNING = "tuning cases: the weights were not trained on them, but the checkpoint was selected on them"
OUT_OF_FOLD = "test cases out of fold, each predicted by one model: the rules are for the mean of all"
_NAMED = 3


def asked_for(config: Mapping[str, Any]) -> str:
    """`none`, `stored`, `fit` or a path: the key `postprocess` of configs/evaluate.yaml."""
    return str(config.get("postprocess") or NONE)


def require_run(config: Mapping[str, Any]) -> None:
    """Refuse post-processing of a folder of masks.

    Raises:
        UsageError: It is asked for.
    """
    if asked_for(config) != NONE:
        raise UsageError(
            "masks of a folder are scored as they are",
            where=f"postprocess={asked_for(config)}",
            why="rules belong to runs, and nobody knows which run made these masks",
            mend=f"postprocess=none; or score the run: {HOW_TO_FIT}",
        )


def require_fitting_cases(config: Mapping[str, Any], runs: Sequence[str | Path], folds: Sequence[Path]) -> None:
    """Refuse to fit on cases on which rules are tried; before anything is predicted.

    Args:
        config: Keys of configs/evaluate.yaml.
        runs: What `run` names.
        folds: The runs below it, where it names the folder of a cross-validation.

    Raises:
        UsageError: With the line that fits.
    """
    subset = config["subset"]
    if asked_for(config) != FIT:
        return
    if len(runs) > 1:
        raise UsageError(
            "rules are not fitted on a list of runs",
            where="run, postprocess=fit",
            why="the cases that none of them has seen are needed to try the rules on",
            mend=f"{fit_command([Path(runs[0])])}; for the mean of the folds of a cross-validation: run=<their folder> "
            "subset=test postprocess=fit",
        )
    if len(folds) > 1 and subset != "test":
        raise UsageError(
            "rules for the mean of the folds are fitted on the test cases of each",
            where=f"subset={subset}",
            why="people held out are needed to try the rules on"
            if subset == "held_out"
            else "the other roles share cases between folds",
            mend=fit_command(folds),
        )
    if len(folds) <= 1 and (folds or subset != "tuning"):
        raise UsageError(
            "rules for one run are fitted on its tuning cases",
            where=f"run={runs[0]} subset={subset}",
            why="other cases are needed to try the rules on, or were trained on",
            mend=fit_command([folds[0] if folds else Path(runs[0])]),
        )


def require_unseen(config: Mapping[str, Any], label: str, run: Path) -> None:
    """Refuse to fit on cases of which some were trained on.

    Args:
        config: Keys of configs/evaluate.yaml.
        label: What the evaluation must call itself.
        run: The run folder.

    Raises:
        UsageError: They were, and are scored by `allow_seen=true`.
    """
    if asked_for(config) == FIT and label == SEEN:
        raise UsageError(
            "rules are not fitted on cases that the model has seen",
            where=f"{run}, subset={config['subset']}, allow_seen=true",
            why="there its errors are not those that it makes on new images",
            mend="allow_seen=false postprocess=fit, with the cases that it names taken out of the data set",
        )


def require_rules_of_each(config: Mapping[str, Any], folds: Sequence[Path]) -> None:
    """Refuse to score folds with their own rules where one has none; before anything is predicted.

    Raises:
        UsageError: Naming the first that has none.
    """
    if asked_for(config) == STORED:
        for fold in folds:
            if not (fold / FILE).exists():
                raise _no_rules([fold], also="rules for their mean are tried by subset=held_out")


def rules_to_try(config: Mapping[str, Any], members: Members) -> StoredPostProcessing | None:
    """The rules whose row is asked for, which are told; None where no row is.

    Raises:
        UsageError: There are none, they are of other models, do not suit the labels, or were fitted on masks that were
            predicted otherwise.
        StorageError: The file is damaged.
    """
    asked, plan = asked_for(config), members.first.plan
    if asked in (NONE, FIT):
        return None
    runs = [run.directory.path for run in members.runs]
    path = stored_path(runs) if asked == STORED else Path(asked)
    if path is None or (asked == STORED and not path.exists()):
        raise _no_rules(runs)
    models = models_of(members.runs)
    # By its path, which must suit: what was asked for is not left out.
    found = postprocessing_for(runs, models, plan.labels, average=members.average, postprocess=path)
    assert found is not None
    print(found.text(size_unit(plan.unit, plan.dimensions)), flush=True)
    return found


def chosen_on(stored: StoredPostProcessing, hashes: Mapping[str, str], config: Mapping[str, Any]) -> tuple[str, ...]:
    """The cases that the rules were fitted on, by content, which mark their row; refused unless `allow_seen` is set.

    Args:
        stored: The rules.
        hashes: Content hash of the images of each case that is to be scored.
        config: Keys of configs/evaluate.yaml.

    Raises:
        DataError: There are such cases; names case and file.
    """
    found = stored.fitted_on(hashes)
    if found and not config.get("allow_seen", False):
        names = ", ".join(_known_as(case, stored.fitted[hashes[case]]) for case in found[:_NAMED])
        raise DataError(
            "the rules were fitted on cases that they are to be tried on",
            where=f"subset={config['subset']}, case {found[0]}, {stored.path}",
            why=f"{len(found)} of {len(hashes)} cases, such as {names}",
            mend="subset=test or held_out; postprocess=none; or allow_seen=true, which marks the row SEEN CASES",
        )
    return tuple(found)


def fit_scored(
    runs: Sequence[TrainedRun], regions: Sequence[Regions], *, average: Average, cases_are: str, output: Path
) -> PostProcessingFit:
    """Fit rules on what was scored, and store them.

    Args:
        runs: Whose masks the rules are for: one, or the folds whose mean they are for.
        regions: Of the plain prediction of each case.
        average: What was resampled, and of several is averaged.
        cases_are: `TUNING` or `OUT_OF_FOLD`.
        output: Folder of postprocessing.json.

    Raises:
        DataError: Too few cases or people.
    """
    plan = runs[0].plan
    unit = size_unit(plan.unit, plan.dimensions)
    print()
    return fit_postprocessing(
        regions, plan.labels, models=models_of(runs), average=average, cases_are=cases_are, output=output, unit=unit
    )


def _known_as(case_id: str, name: str) -> str:
    return case_id if name == case_id else f"{case_id} (there {name})"


def _no_rules(runs: Sequence[Path], *, also: str = "") -> UsageError:
    path = stored_path(runs)
    return UsageError(
        "there is no post-processing to try",
        where="postprocess=stored" if path is None else str(path),
        why="the runs have no folder in common" if path is None else "no such file",
        mend="; ".join(filter(None, [HOW_TO_FIT if path is None else fit_command(runs), also, "or postprocess=none"])),
    )
