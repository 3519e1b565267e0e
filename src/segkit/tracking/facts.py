"""What MLflow is told about a run beside its files, kept in the run folder as tracking.json.

With it the copy is a function of the run folder alone: it can be made again, anywhere, by `segkit sync`.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from segkit.errors import UsageError
from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json, write_json
from segkit.tracking.names import flat


@dataclass(frozen=True)
class DataFacts:
    """A data set as MLflow names it.

    Args:
        name: Name of the data set.
        digest: Fingerprint of its content.
        source: Where it lies.
        context: What it is used for.
    """

    name: str
    digest: str
    source: str
    context: Literal["training", "validation"]


@dataclass(frozen=True)
class Rewind:
    """The run was taken back to a checkpoint and went on from there: what came after it counts no more.

    Args:
        step: Optimizer steps of the checkpoint.
        epoch: Its epochs.
        n: Its samples.
    """

    step: int
    epoch: int
    n: int

    def __str__(self) -> str:
        """Step and epoch."""
        return f"step {self.step} (epoch {self.epoch})"


@dataclass(frozen=True)
class Facts:
    """See the head of this file.

    Args:
        id: Names the training itself, whatever its folder is called; empty where it is not known.
        store: Where the run's own copy is; empty where it is not known.
        experiment: MLflow's experiment.
        lives: How often the run was started.
        params: The flat configuration of the first life.
        drift: What a later life had different, or in addition.
        tags: Facts of the latest life.
        data: What went in.
        rewinds: In their order.
    """

    id: str = ""
    store: str = ""
    experiment: str = ""
    lives: int = 0
    params: Mapping[str, str] = field(default_factory=dict)
    drift: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    data: Sequence[DataFacts] = ()
    rewinds: Sequence[Rewind] = ()


def load_facts(run: RunDirectory) -> Facts:
    """The facts of a run; where there are none (never tracked, or damaged) what its configuration says."""
    try:
        stored = read_json(run.tracking)
        return Facts(
            id=str(stored["id"]),
            store=str(stored["store"]),
            experiment=str(stored["experiment"]),
            lives=int(stored["lives"]),
            params=_texts(stored["params"]),
            drift=_texts(stored["drift"]),
            tags=_texts(stored["tags"]),
            data=tuple(DataFacts(**_texts(one)) for one in stored["data"]),  # type: ignore[arg-type]  # four strings
            rewinds=tuple(Rewind(int(one["step"]), int(one["epoch"]), int(one["n"])) for one in stored["rewinds"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        try:
            return Facts(params=flat(run.load_config()))
        except UsageError:
            return Facts()


def begin_life(
    run: RunDirectory,
    config: Mapping[str, Any],
    *,
    store: str = "",
    experiment: str = "",
    tags: Mapping[str, str] | None = None,
    data: Sequence[DataFacts] = (),
    rewind: Rewind | None = None,
) -> Facts:
    """Write down that a life of the run begins.

    Args:
        run: The run folder, held by the caller.
        config: The resolved configuration.
        store: Tracking URI of the run's own copy.
        experiment: MLflow's experiment.
        tags: Facts that may change from life to life: commit, host, device, data set.
        data: What goes in; what went in before is kept.
        rewind: Where this life begins by taking the run back.

    Raises:
        OSError: The folder cannot be written.
    """
    before, params = load_facts(run), flat(config)
    first = before.params if before.id else params
    facts = replace(
        before,
        id=before.id or uuid.uuid4().hex,
        store=store or before.store,
        experiment=experiment or before.experiment,
        lives=before.lives + 1,
        params=first,
        drift={**before.drift, **{key: value for key, value in params.items() if first.get(key) != value}},
        tags={**before.tags, **(tags or {})},
        data=(*before.data, *(one for one in data if one not in before.data)),
        rewinds=(*before.rewinds, *((rewind,) if rewind else ())),
    )
    write_json(run.tracking, asdict(facts))
    return facts


def _texts(value: Mapping[str, Any]) -> dict[str, str]:
    return {str(key): str(item) for key, item in value.items()}
