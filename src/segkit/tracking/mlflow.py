"""The copy of a run in MLflow: made from the run folder at any time, never the other way round.

One MLflow run for the life of a segkit run: its id lies in the run folder. A (key, step) is sent only if MLflow has
none, so a resumed run continues its curves without doubles. Params are those of the first life; what changes later
becomes the tag `param_drift`. MLflow cannot take points back: a run that was rewound behind points already sent goes
on in a fresh MLflow run, and each of the two names the other.

Everything here may raise and may be done again: what is there is not sent twice. Who must not be disturbed uses
`segkit.tracking.uploader`; who writes holds `segkit.tracking.record.keep_alone`.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag

from segkit.runs.directory import RunDirectory
from segkit.tracking.artifacts import send_files
from segkit.tracking.connection import connect
from segkit.tracking.facts import DataFacts, Facts, Rewind, load_facts
from segkit.tracking.folder import (
    Ending,
    ending_of,
    files_at_start,
    files_of,
    fingerprint,
)
from segkit.tracking.identity import create_run, find_run
from segkit.tracking.journal import CLOCK
from segkit.tracking.logged_model import log_model
from segkit.tracking.names import TAG_LENGTH, by_epoch, plain_key
from segkit.tracking.privacy import privacy_of
from segkit.tracking.record import Record
from segkit.tracking.scores import scores_of_run, send_scores
from segkit.tracking.store import store_uri
from segkit.tracking.sweep import parent_of
from segkit.tracking.tail import Tail

_BATCH = 100
_METRICS = 1000


class MlflowCopy:
    """One run's copy.

    Args:
        run: The run folder.
        store: Path of the sqlite file, or a server's address.
        experiment: MLflow's experiment; made where it is missing.

    Raises:
        UsageError: The store is of a kind, or on a drive, that cannot be used.
    """

    def __init__(self, run: RunDirectory, *, store: str | Path, experiment: str = "segkit") -> None:
        self.run, self.uri = run, store_uri(store)
        self._privacy = privacy_of(run, self.uri)
        self._look_again()
        self._client, self.experiment_id = connect(self.uri, experiment)
        self.record = Record.load(run.mlflow, self.uri)
        self.parent = parent_of(self._client, run, self.uri, self.experiment_id)
        run_id = find_run(self._client, run, self.record, self.experiment_id) or self._create()
        if run_id != self.record.run_id:
            self._adopt(run_id)

    @property
    def run_id(self) -> str:
        """MLflow's id of the copy."""
        return self.record.run_id

    # -- what a life does ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Say that a life of the run begins, and describe it."""
        self.describe()
        self._client.update_run(self.run_id, status="RUNNING")
        if self.parent:
            self.parent.begin()

    def describe(self) -> None:
        """Params, tags, data sets, and the files that are there from the start."""
        facts = self._privacy.facts(load_facts(self.run))
        self._after_rewinds(facts)
        known = self._client.get_run(self.run_id)
        self._params(facts, known)
        self._tag({**facts.tags, "segkit.run": self._name, "segkit.id": facts.id, "segkit.lives": str(facts.lives)})
        if facts.rewinds:
            self._tag({"segkit.rewound": "; ".join(f"to {rewind}" for rewind in facts.rewinds)})
        self._data(facts.data, known)
        self.artifacts([(path, path.name) for path in files_at_start(self.run)])

    def sync(self) -> int:
        """Send what the journals have and MLflow has not.

        Returns:
            The number of points sent.
        """
        measured = self._tails[0].new()
        for row in self._tails[1].new():  # after the values: each has its time by now
            if row.key != CLOCK:
                measured.append(row)
            elif math.isfinite(row.value):
                self._clock.setdefault(row.n, int(row.value * 1000))
        points: dict[tuple[str, int], Metric] = {}
        for row in measured:
            key, step = plain_key(row.key), row.epoch if by_epoch(row.key) else row.step
            if step not in self._sent_steps(key) and (key, step) not in points:
                points[key, step] = Metric(key, row.value, self._clock.get(row.n, 0), step)
        waiting = list(points.values())
        try:
            for start in range(0, len(waiting), _METRICS):
                self._client.log_batch(self.run_id, metrics=waiting[start : start + _METRICS])
        except BaseException:
            self._look_again()  # what arrived is not known
            raise
        for point in waiting:
            self._sent[point.key].add(point.step)
        return len(waiting)

    def artifacts(self, files: Sequence[tuple[Path, str]]) -> None:
        """Copy what of the files may go to their names there, unless the same content was copied before."""
        with self._privacy.files(files) as found:
            send_files(self._client, self.record, found, path=self.run.mlflow)

    def finish(self, status: Ending, *, reason: str = "") -> int:
        """Bring the copy up to date with everything in the run folder and say how the run ended.

        Args:
            status: MLflow's word for it. A preempted run is KILLED, with the reason as a tag.
            reason: Why it ended.

        Returns:
            The number of points sent.
        """
        at = fingerprint(self.run)  # before: what changes meanwhile is not in it
        sent = self.sync()
        self.artifacts(files_of(self.run))
        log_model(self._client, self.run, self.record, self._privacy)
        send_scores(self._client, self.run_id, scores_of_run(self.run))
        self._tag({"segkit.ended": self._privacy.reason(reason) or status.lower()})
        self._client.set_terminated(self.run_id, status, end_time=self._ended())
        if self.parent:
            self.parent.update()
        self.record.complete = at
        self.record.save(self.run.mlflow)
        return sent

    def rebuild(self) -> int:
        """Make the copy from nothing but the run folder, for a run that nobody holds; see `finish`."""
        self.describe()
        status, reason = ending_of(self.run)
        return self.finish(status, reason=reason)

    def _look_again(self) -> None:
        """Forget what is known of the journals and of the points that are there."""
        self._tails = (Tail(self.run.metrics), Tail(self.run.timings))
        self._clock: dict[int, int] = {}
        self._sent: dict[str, set[int]] = {}
        self._keys: set[str] | None = None

    # -- parts of it ---------------------------------------------------------------------------------------

    def _create(self) -> str:
        parent = self.parent.run_id if self.parent else ""
        return create_run(self._client, self.run, self.experiment_id, name=self._name, parent=parent)

    @property
    def _name(self) -> str:
        return self._privacy.text(self.run.name)

    def _adopt(self, run_id: str) -> None:
        rewinds = len(load_facts(self.run).rewinds)
        given_up = self.record.superseded
        self.record = Record(
            self.uri, run_id=run_id, experiment_id=self.experiment_id, rewinds=rewinds, superseded=given_up
        )
        self.record.save(self.run.mlflow)
        self._look_again()

    def _after_rewinds(self, facts: Facts) -> None:
        """Go on in a fresh MLflow run where points were sent that the run has taken back since."""
        new = facts.rewinds[self.record.rewinds :]
        if not new:
            return
        back = min(new, key=lambda rewind: rewind.n)
        if self._has_points_after(back):
            old = self.run_id
            self.record.superseded = [*self.record.superseded, old]
            self._adopt(self._create())
            self._tag({"segkit.supersedes": old})
            ended = {"segkit.superseded_by": self.run_id, "segkit.ended": f"rewound to {back}"}
            self._client.log_batch(old, tags=[RunTag(key, value) for key, value in ended.items()])
            self._client.set_terminated(old, "KILLED")
        self.record.rewinds = len(facts.rewinds)
        self.record.save(self.run.mlflow)

    def _has_points_after(self, back: Rewind) -> bool:
        keys = self._client.get_run(self.run_id).data.metrics
        return any(max(self._sent_steps(key)) > (back.epoch if by_epoch(key) else back.step) for key in keys)

    def _params(self, facts: Facts, known: Run) -> None:
        there = known.data.params
        items = [Param(key, value) for key, value in facts.params.items() if key not in there]
        for start in range(0, len(items), _BATCH):
            self._client.log_batch(self.run_id, params=items[start : start + _BATCH])
        other = {key: value for key, value in facts.params.items() if there.get(key, value) != value}
        if drift := {**other, **facts.drift}:
            self._tag({"param_drift": json.dumps(drift, ensure_ascii=False)})

    def _data(self, data: Sequence[DataFacts], known: Run) -> None:
        """Name the data of the run, once a context and content."""
        there = {
            (known_input.dataset.digest, tag.value)
            for known_input in (known.inputs.dataset_inputs if known.inputs is not None else ())
            for tag in known_input.tags
        }
        for one in data:
            if (one.digest[:36], one.context) not in there:
                named = Dataset(one.name[:500], one.digest[:36], "local", json.dumps({"uri": one.source}))
                context = InputTag("mlflow.data.context", one.context)
                self._client.log_inputs(self.run_id, [DatasetInput(named, [context])])

    def _ended(self) -> int:
        """When STATUS.json was written, which is the end of the life; ms since 1970."""
        try:
            return int(self.run.status.stat().st_mtime * 1000)
        except FileNotFoundError:
            return int(time.time() * 1000)

    def _tag(self, tags: Mapping[str, str]) -> None:
        items = [RunTag(plain_key(key), str(value)[:TAG_LENGTH]) for key, value in tags.items()]
        self._client.log_batch(self.run_id, tags=items)

    def _sent_steps(self, key: str) -> set[int]:
        """Steps at which MLflow has a point of `key`; asked once."""
        if self._keys is None:
            self._keys = set(self._client.get_run(self.run_id).data.metrics)
        if key not in self._sent:
            history = self._client.get_metric_history(self.run_id, key) if key in self._keys else []
            self._sent[key] = {point.step for point in history}
        return self._sent[key]
