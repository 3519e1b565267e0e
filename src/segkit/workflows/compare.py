"""`compare`: two models, or two methods, on the same cases, from the tables that `evaluate` wrote."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from segkit.errors import DataError, UsageError
from segkit.evaluation.comparison import Comparison, compare
from segkit.evaluation.comparison_files import write_comparison
from segkit.evaluation.stored_table import PER_CASE, SUMMARY, StoredTable, read_table
from segkit.runs.compatibility import differences, is_frozen
from segkit.runs.directory import RunDirectory
from segkit.runs.locate import open_run
from segkit.workflows.provenance import HELD_OUT, OPTIMISTIC, SEEN

_SIDES = ("reference", "candidate")
_OF_THE_METHOD = (
    "optimizer",
    "scheduler",
    "select",
    "early_stopping",
    "trainer.max_epochs",
    "trainer.gradient_clip",
)
"""What a run may change in its life and two seeds of one method may not differ in."""
_Given: TypeAlias = tuple[Path, RunDirectory | None]
"""The folder of the tables, and the run that they are of where it is named."""


def run(config: Mapping[str, Any]) -> Comparison:
    """Compare two sides.

    Args:
        config: Keys of configs/compare.yaml.

    Returns:
        The comparison, which is also printed and written to `output`.

    Raises:
        UsageError: No such run or evaluation, an unknown metric, or runs of a side that are not seeds of one method.
        DataError: Different test sets, people, classes, labels or rules; or cases that a model has seen.
    """
    root = Path(config["paths"]["runs"]).expanduser()
    folders = {side: [_folder(one, config["subset"], root) for one in _listed(config[side])] for side in _SIDES}
    _require_apart([*folders["reference"], *folders["candidate"]])
    notes = [note for side in _SIDES for note in _require_one_method(side, folders[side])]
    sides = {side: [read_table(folder) for folder, _ in folders[side]] for side in _SIDES}
    tables = [*sides["reference"], *sides["candidate"]]
    unknown = [table.run for table in tables if "seen_cases" not in table.facts]
    notes += [f"what {name} was trained on is not known" for name in unknown]
    label = _label(tables, allow_seen=config["allow_seen"])
    found = compare(sides["reference"], sides["candidate"], _listed(config["metrics"]), label=label, notes=notes)
    output = Path(config["output"] or root / "comparisons" / _name(folders, config["subset"])).expanduser().absolute()
    write_comparison(output, found, note=label if label == SEEN else "")
    _print(found, output)
    return found


def _folder(given: str, subset: str, root: Path) -> _Given:
    """The tables that a user named.

    Raises:
        UsageError: It is neither a run nor the tables of an evaluation.
    """
    path = Path(given).expanduser()
    if any((path / name).is_file() for name in (PER_CASE, SUMMARY)) and not RunDirectory(path).exists:
        run = RunDirectory(path.absolute().parent.parent)
        return path.absolute(), run if run.exists and path.absolute().parent.name == "evaluation" else None
    run = open_run(given, root=root)
    folder = run.evaluation / subset
    if not (folder / SUMMARY).is_file():
        why = f"no {SUMMARY} in {folder}"
        mend = f"python -m segkit.evaluate run={run.path} subset={subset}"
        raise UsageError("the run was not evaluated, or not to the end", where=str(run.path), why=why, mend=mend)
    return folder, run


def _require_apart(folders: Sequence[_Given]) -> None:
    """Refuse a table that is named twice: it would count as two seeds, or be compared with itself.

    Raises:
        UsageError: Naming it.
    """
    seen: set[Path] = set()
    for folder, _ in folders:
        if folder.resolve() in seen:
            mend = "name each run once"
            raise UsageError("one evaluation is named twice", where="reference, candidate", why=str(folder), mend=mend)
        seen.add(folder.resolve())


def _require_one_method(side: str, folders: Sequence[_Given]) -> list[str]:
    """Refuse runs of one side that are not the same method trained from different seeds.

    Returns:
        What could not be checked.

    Raises:
        UsageError: Naming two runs, and the keys in which they differ or the seed that they share.
    """
    runs = [run for _, run in folders if run is not None]
    configs = [run.load_config() for run in runs]
    mend = f"{side}=<runs of one recipe that differ in their seed>"
    for number, (run, config) in enumerate(zip(runs, configs, strict=True)):
        for other, earlier in zip(runs[:number], configs[:number], strict=True):
            where = f"{side}: {other.path} and {run.path}"
            changed = [change for change in differences(earlier, config) if _is_of_the_method(change[0])]
            if changed:
                why = "; ".join(f"{key}: {before!r} and {after!r}" for key, before, after in changed)
                raise UsageError("these runs are not seeds of one method", where=where, why=why, mend=mend)
            if config.get("seed") is not None and config.get("seed") == earlier.get("seed"):
                why = f"seed {config['seed']} twice"
                raise UsageError("these runs are one training made twice", where=where, why=why, mend=mend)
    if len(folders) > 1 and len(runs) < len(folders):
        return [f"{side}: given as tables; that they are of one method and of different seeds was not checked"]
    return []


def _is_of_the_method(key: str) -> bool:
    if key == "seed":
        return False
    return is_frozen(key) or any(key == entry or key.startswith(entry + ".") for entry in _OF_THE_METHOD)


def _label(tables: Sequence[StoredTable], *, allow_seen: bool) -> str:
    """What the result must call itself; refuses what may not be compared.

    A model looks better on cases it was trained, selected or tuned on, and not equally so for every model.

    Raises:
        DataError: A model has seen cases of its table.
    """
    for table in tables:
        seen = table.facts.get("seen_cases")
        if not seen and table.facts.get("label") not in (SEEN, OPTIMISTIC):
            continue
        if allow_seen:
            return SEEN
        known = len(seen) if isinstance(seen, list) else 0
        why = f"{table.run} was trained, selected or tuned on {known or 'some'} of {len(table.cases)} cases"
        mend = "subset=test; or allow_seen=true, which marks every output SEEN CASES"
        what = "a model has seen the cases it is compared on"
        raise DataError(what, where=str(table.folder), why=why, mend=mend)
    labels = {str(table.facts.get("label")) for table in tables}
    if not labels <= {"test", HELD_OUT, "unseen cases"}:
        return "cases whose history is not known"
    return labels.pop() if len(labels) == 1 else "unseen cases"


def _name(folders: Mapping[str, Sequence[_Given]], subset: str) -> str:
    """CANDIDATE-vs-REFERENCE-SUBSET; of several seeds the first and their number."""
    names = []
    for side in reversed(_SIDES):
        folder, run = folders[side][0]
        several = f"-x{len(folders[side])}" if len(folders[side]) > 1 else ""
        names.append((folder.name if run is None else run.name) + several)
    return f"{'-vs-'.join(names)}-{subset}"


def _print(found: Comparison, output: Path) -> None:
    if found.label == SEEN:
        print(f"*** {SEEN}: some of these cases were trained or selected on; this says nothing of new ones ***")
    for side, tables in (("reference", found.reference), ("candidate", found.candidate)):
        print(f"{side}  {', '.join(table.run for table in tables)}")
    print(f"{found.label}: the same {found.n_cases} cases of {found.n_groups} groups on both sides")
    for line in found.table():
        print(line)
    print(output)


def _listed(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)
