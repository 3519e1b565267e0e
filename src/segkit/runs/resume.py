"""What the key `resume` means for a run folder."""

from dataclasses import dataclass
from pathlib import Path

from segkit.errors import StorageError, UsageError
from segkit.runs.checkpoints import newest_valid, sweep
from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json
from segkit.runs.identity import claim, identity
from segkit.runs.index import rewind
from segkit.runs.leftovers import sweep_abandoned
from segkit.runs.manifest import MANIFEST, Entry, checkpoint_path, checkpoint_steps, verify_checkpoint


@dataclass(frozen=True)
class ResumePoint:
    """Where a run goes on.

    Args:
        path: The checkpoint's folder.
        entry: What it stands for.
    """

    path: Path
    entry: Entry


def recover(run: RunDirectory) -> None:
    """Put right what a killed life left, and give the run its id, before anything of it is read.

    Only for who holds the run. Where the id is lost or damaged, the newest checkpoint that names one gives it back.
    """
    sweep_abandoned(run.path)  # of the dead only: `report` and others may write beside a training
    sweep(run.checkpoints)
    if identity(run.checkpoints) is None:
        claim(run.checkpoints, _named_by_checkpoints(run))


def _named_by_checkpoints(run: RunDirectory) -> str | None:
    for step in reversed(checkpoint_steps(run.checkpoints)):
        try:
            found = read_json(checkpoint_path(run.checkpoints, step) / MANIFEST).get("run")
        except (OSError, ValueError):  # damaged: `newest_valid` will say so
            continue
        if isinstance(found, str):
            return found
    return None


def find_resume_point(run: RunDirectory, resume: str = "auto") -> ResumePoint | None:
    """The checkpoint to go on from, None for a fresh start. Changes nothing.

    Args:
        run: The run folder.
        resume: `auto`: the newest whole checkpoint, a fresh start where there is none. `never`: a fresh start,
            refused where a run is. `must`: like auto, but refused where there is nothing to go on from. Anything
            else is a checkpoint of this run: its path or its folder's name.

    Raises:
        UsageError: The mode does not fit what is there.
        StorageError: Checkpoints are there and none is whole.
    """
    if resume == "never":
        if run.exists or checkpoint_steps(run.checkpoints):
            raise UsageError(
                "There is a run of this name already.",
                where=f"resume=never run_name={run.name}",
                why=f"{run.path} is not empty",
                mend="give another run_name, or resume=auto to go on with it",
            )
        return None
    if resume in {"auto", "must"}:
        path = newest_valid(run.checkpoints)
        if path is None and resume == "must":
            raise UsageError(
                "There is nothing to go on from.",
                where=f"resume=must run_name={run.name}",
                why=f"no checkpoint in {run.checkpoints}",
                mend="check run_name and paths.runs, or resume=auto to start afresh",
            )
        return None if path is None else ResumePoint(path, verify_checkpoint(path))
    return _named(run, resume)


def rewind_to(run: RunDirectory, point: ResumePoint) -> None:
    """Forget the checkpoints after `point`. The journals are cut by their owner, at `point.entry.n`."""
    rewind(run.checkpoints, point.entry.step)


def _named(run: RunDirectory, resume: str) -> ResumePoint:
    known = [checkpoint_path(run.checkpoints, step).name for step in checkpoint_steps(run.checkpoints)]
    path = Path(resume).expanduser().absolute()
    if resume in known:
        path = run.checkpoints / resume
    if path.parent.resolve() != run.checkpoints.resolve() or path.name not in known:
        raise UsageError(
            "That is no checkpoint of this run.",
            where=f"resume={resume}",
            why=f"the run has {', '.join(known) if known else 'none'}; weights of another run are no state to resume",
            mend="resume=<one of these>, or weights=<file> to begin with other weights",
        )
    try:
        return ResumePoint(path, verify_checkpoint(path))
    except StorageError as error:
        error.mend = error.mend or "resume=auto goes back to the newest whole one"
        raise StorageError(error.what, where=error.where, why=error.why, mend=error.mend) from error
