"""Which checkpoints a run has, which is the best and the last, and which may go.

The folder is the truth. `index.json`, `last.json` and `best.json` are made from it for people and other programs,
each replaced atomically, so they agree with the folder also after somebody's `rm`.
"""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from segkit.errors import StorageError
from segkit.runs.files import remove_tree, write_json
from segkit.runs.manifest import FORMAT, Entry, checkpoint_path, checkpoint_steps, is_foreign
from segkit.runs.scores import read_entry

INDEX = "index.json"
_logger = logging.getLogger(__name__)


def load_index(root: Path) -> tuple[Entry, ...]:
    """Entries of the checkpoints below `root`, by step. One without a readable manifest is named and left out."""
    entries = []
    for step in checkpoint_steps(root):
        try:
            entries.append(read_entry(checkpoint_path(root, step)))
        except StorageError as error:
            _logger.warning("%s", error)
    return tuple(entries)


def best(entries: Sequence[Entry]) -> Entry | None:
    """The validated entry of the highest score, the earliest among equals; None where nothing was validated."""
    validated = [entry for entry in entries if entry.score is not None and entry.validated]
    return max(validated, key=lambda entry: (entry.score or 0.0, -entry.step), default=None)


def last(entries: Sequence[Entry]) -> Entry | None:
    """The entry of the highest step, whatever its score."""
    return max(entries, key=lambda entry: entry.step, default=None)


def kept(entries: Sequence[Entry], *, top_k: int = 1, keep: int = 2, leased: Collection[int] = ()) -> frozenset[int]:
    """Steps of the checkpoints to keep: the newest `keep`, the `top_k` of the highest score, and those in use.

    Args:
        entries: All of them.
        top_k: At least 1, so that the best one always stays.
        keep: Generations, at least 2: one may turn out damaged.
        leased: Steps of those that somebody is reading.

    Raises:
        ValueError: `top_k` or `keep` is too small.
    """
    if top_k < 1 or keep < 2:
        raise ValueError(f"top_k must be at least 1 and keep at least 2, not {top_k} and {keep}")
    newest = sorted(entries, key=lambda entry: -entry.step)[:keep]
    ranked = sorted((e for e in entries if e.validated), key=lambda e: (-(e.score or 0.0), e.step))[:top_k]
    used = [entry for entry in entries if entry.step in leased]
    return frozenset(entry.step for entry in [*newest, *ranked, *used])


def refresh(root: Path, *, top_k: int = 1, keep: int = 2, leased: Collection[int] = ()) -> tuple[Entry, ...]:
    """Write index and pointers for what is below `root`, then remove what need not be kept.

    The new checkpoint lies whole in the folder before this is called, and the files that point to checkpoints are
    written before any is removed: at every instant they name folders that are there.

    Returns:
        The entries that remain.
    """
    entries = load_index(root)
    stay = kept(entries, top_k=top_k, keep=keep, leased=leased)
    remaining = tuple(entry for entry in entries if entry.step in stay)
    write_pointers(root, remaining)
    for entry in entries:
        if entry.step not in stay:
            remove_tree(checkpoint_path(root, entry.step))
    return remaining


def write_pointers(root: Path, entries: Sequence[Entry]) -> None:
    """Write index.json, last.json and best.json; a pointer without target is removed."""
    write_json(root / INDEX, {"format": FORMAT, "checkpoints": [entry.to_json() for entry in entries]})
    for name, entry in (("last.json", last(entries)), ("best.json", best(entries))):
        if entry is None:
            (root / name).unlink(missing_ok=True)
        else:
            folder = checkpoint_path(root, entry.step).name
            write_json(
                root / name, {"checkpoint": folder, "step": entry.step, "epoch": entry.epoch, "score": entry.score}
            )


def rewind(root: Path, step: int) -> None:
    """Forget every checkpoint after `step`; the files that point to them first.

    Those of other runs are not this run's to remove: they lose their place in the order, not their files.
    """
    entries = load_index(root)
    write_pointers(root, [entry for entry in entries if entry.step <= step])
    for later in checkpoint_steps(root):
        if later > step:
            path = checkpoint_path(root, later)
            if is_foreign(path) and not (beside := path.with_name(f"{path.name}.of-another-run")).exists():
                path.rename(beside)
            else:
                remove_tree(path)
