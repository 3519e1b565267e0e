"""`weights=PATH`: the network of a new run begins with weights from a file; what became of each is written down.

Read before anything else is done, so that a wrong path is found at once; fitted once the network is there. A run that
goes on does not read the file again: its checkpoint holds the weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from segkit.data.splits import Roles
from segkit.planning.plan import Plan
from segkit.runs.directory import RunDirectory
from segkit.runs.files import atomic_write, sha256, write_json
from segkit.weights.files import read_weights
from segkit.weights.source import Source
from segkit.weights.table import notes, summary, table
from segkit.weights.transfer import Transfer, refuse_inexact, transfer
from segkit.workflows.provenance import Model
from segkit.workflows.stored import stored_ancestors, stored_roles

_NAMED = 3


@dataclass(frozen=True)
class InitialWeights:
    """The weights that a run begins with.

    Args:
        path: Where they were found.
        source: As read.
        ancestors: The runs whose cases the weights have seen.
    """

    path: Path
    source: Source
    ancestors: tuple[Model, ...] = ()

    def put_into(self, network: nn.Module, config: Mapping[str, Any], plan: Plan) -> Transfer:
        """Give the network the weights; what became of each is returned.

        Raises:
            UsageError: The file has nothing of this network, or, under `strict`, not all and only that.
        """
        found = transfer(
            network, self.source, channels=plan.channels, classes=plan.labels.names, patch_size=plan.patch_size
        )
        if config["weights_match"] == "strict":
            refuse_inexact(found, self.source)
        network.load_state_dict(found.state)
        return found

    def write(self, run: RunDirectory, found: Transfer) -> list[str]:
        """Write the table and the ancestors into the run folder; returns lines for the banner."""
        checksum = sha256(self.path) if self.path.is_file() else ""
        atomic_write(run.weights, table(found, self.source, path=str(self.path), sha256=checksum))
        records = [{"name": model.name, "roles": model.roles.to_json()} for model in self.ancestors]
        write_json(run.ancestors, {"runs": records})
        return [summary(found, self.source), *notes(found, self.source)]

    def warnings(self, roles: Roles) -> list[str]:
        """What the weights have seen of the cases that this run selects or tests by.

        Args:
            roles: Of the new run, with the contents of the tuning cases; test cases are not opened, and go by name.
        """
        lines = []
        for model in self.ancestors:
            known = {role: set(model.roles.of(role)) for role in ("train", "tuning")}
            tuning = [
                case_id
                for case_id in roles.tuning
                if model.roles.role_of_content(roles.content_hashes.get(case_id, "")) == "train"
            ]
            test = [case_id for case_id in roles.test if case_id in known["train"] | known["tuning"]]
            if tuning:
                lines.append(f"{_few(tuning)}: {model.name} was trained on them: their selection score is too good")
            if test:
                why = f"test cases named like cases that {model.name} has seen"
                lines.append(f"{_few(test)}: {why}: evaluate refuses to score the same images")
        return lines


def initial_weights(config: Mapping[str, Any]) -> InitialWeights | None:
    """Read what `weights` names; None where a network begins as it is drawn.

    Raises:
        UsageError: There is nothing there.
        DataError: It cannot be read as tensors; nothing of it was executed.
        StorageError: A run of segkit that is damaged.
    """
    if config.get("weights") is None:
        return None
    path = Path(config["weights"])
    source = read_weights(path)
    if source.run is None:
        return InitialWeights(path, source)
    run = RunDirectory(source.run)
    own = (Model(run.name, stored_roles(run)),) if run.split.is_file() else ()
    return InitialWeights(path, source, (*own, *stored_ancestors(run)))


def place_of_weights(given: str, runs: Path) -> Path:
    """The absolute path of what a user named: a path from here, or the name of a run.

    A bare name stays that of a run when the run is gone: the same command goes on with what was begun from it.
    """
    here, named = Path(given).expanduser().absolute(), runs / given
    bare = Path(given).name == given and not Path(given).suffix
    return named if not here.exists() and (bare or named.exists()) else here


def _few(cases: list[str]) -> str:
    return ", ".join(cases[:_NAMED]) + (f" and {len(cases) - _NAMED} more" if len(cases) > _NAMED else "")
