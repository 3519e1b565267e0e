"""The score of a checkpoint that was validated after it had been written: `SCORE.json` in its folder.

It lies in the folder so that it goes wherever the checkpoint goes, and at the same instant. It names the manifest that
it belongs to: a checkpoint that takes the place of another never inherits its score.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit.runs.files import read_json, sync_folder, write_json
from segkit.runs.manifest import FORMAT, Entry, digest_of, read_manifest

SCORE = "SCORE.json"
_logger = logging.getLogger(__name__)


def write_score(folder: Path, *, score: float | None, per_case: Mapping[str, float | None], manifest: str) -> None:
    """Add the score to the checkpoint in `folder`, whole or not at all.

    Args:
        folder: The checkpoint.
        score: `val/score` of its weights; None where no case has one.
        per_case: Score of each tuning case.
        manifest: Digest of the manifest of the checkpoint that was scored.

    Raises:
        OSError: It cannot be written, or the checkpoint is gone.
    """
    record = {"format": FORMAT, "manifest": manifest, "score": score, "per_case": dict(per_case)}
    # Written in the folder of checkpoints, where `sweep` removes what a kill leaves half-written.
    staged = folder.with_name(f".{folder.name}.score.tmp")
    try:
        write_json(staged, {**record, "checksum": digest_of(record)})
        staged.replace(folder / SCORE)
    except OSError:
        staged.unlink(missing_ok=True)
        raise
    sync_folder(folder)


def entry_of(folder: Path, manifest: Mapping[str, Any], *, tell: Callable[[str], object] = _logger.warning) -> Entry:
    """What the checkpoint in `folder` stands for, with the score that came later.

    Args:
        folder: The checkpoint.
        manifest: As `read_manifest` gave it.
        tell: Is told where the score cannot be used; the checkpoint then counts as not validated.
    """
    entry = Entry.from_json(manifest["entry"])
    path = folder / SCORE
    if (entry.n and entry.validated_n == entry.n) or not path.exists():
        return entry
    try:
        if path.is_symlink():
            raise ValueError("a link stands in its place")
        record = read_json(path)
        if record.pop("checksum") != digest_of(record):
            raise ValueError("its checksum does not fit its content")
        if record["manifest"] != digest_of(manifest):
            raise ValueError("it belongs to another checkpoint of this name")
        later = {"validated_n": entry.n, "score": record["score"], "per_case": record["per_case"]}
        return Entry.from_json({**entry.to_json(), **later})
    except (OSError, ValueError, KeyError) as error:
        tell(f"{folder.name}: {SCORE} is not used: {error}")
        return entry


def read_entry(folder: Path) -> Entry:
    """The same for a folder alone.

    Raises:
        StorageError: The manifest is missing or damaged.
    """
    return entry_of(folder, read_manifest(folder))


def unscored(entries: Sequence[Entry], *, every_n_epochs: int, steps_per_epoch: int) -> list[Entry]:
    """Checkpoints whose validation is due and has not been, by step.

    Due is the end of every so many epochs; a checkpoint from within an epoch is never validated.

    Args:
        entries: Of the run.
        every_n_epochs: Distance of validations.
        steps_per_epoch: Optimizer steps of an epoch.
    """
    return [
        entry
        for entry in sorted(entries, key=lambda entry: entry.step)
        if entry.epoch > 0
        and entry.epoch % every_n_epochs == 0
        and entry.step == entry.epoch * steps_per_epoch
        and entry.validated_n != entry.n
    ]
