"""Reading a file that somebody else may have put there: a regular file of bounded size, never waited for.

A FIFO in the place of a file would block whoever opens it, a device never ends, and an alias in YAML that holds
nine aliases of the one before grows by nine with every line. Each is an error here, before it costs anything.
"""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import yaml

MAX_JSON_BYTES = 16 * 2**20
"""More than the roles and hashes of a hundred thousand cases."""
MAX_YAML_BYTES = 2**20
"""A hundred times a run's configuration."""
MAX_YAML_NODES = 20_000
MAX_YAML_DEPTH = 100

# libyaml judges the events ten times as fast; PyYAML can be built without it.
_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_regular(path: Path, *, limit: int) -> bytes:
    """The content of a regular file; links are followed.

    Args:
        path: The file.
        limit: Bytes; a larger file is not read.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is no regular file, or too large.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        facts = os.fstat(file.fileno())
        if stat.S_ISDIR(facts.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError(f"{path} is no regular file but a {_kind(facts.st_mode)}")
        content = file.read(limit + 1) if facts.st_size <= limit else b""
        if facts.st_size > limit or len(content) > limit:
            raise ValueError(f"{path} has {facts.st_size} bytes; a file of a run has at most {limit}")
    return content


def is_regular(path: Path) -> bool:
    """Whether `path` is a regular file itself, not a link to one."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def parse_json(content: bytes) -> Any:  # noqa: ANN401  JSON values
    """JSON values.

    Raises:
        ValueError: It is not JSON (also for bytes that are no UTF-8), or nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_yaml(content: bytes) -> Any:  # noqa: ANN401  plain values
    """Plain YAML values; tags that name Python objects are errors, and so is what grows when it is unfolded.

    Raises:
        ValueError: It is not such YAML.
    """
    try:
        _require_small(content)
        # The events were judged, so that neither depth nor aliases can surprise the composer.
        return yaml.safe_load(content)
    except (yaml.YAMLError, RecursionError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        # `!!int ''`, `!!bool x` and `!!timestamp x` make the constructors of PyYAML stumble in ways of their own.
        raise ValueError(f"not plain YAML: {error}") from error


def _require_small(content: bytes) -> None:
    """Count the nodes as if every alias were written out; only the stream of events is read.

    Raises:
        ValueError: Too many, nested too deeply, or an alias of what it stands in.
    """
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []  # anchor and size so far of each collection that is not closed
    total = 0
    for event in yaml.parse(content, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, 1))
            if len(open_nodes) > MAX_YAML_DEPTH:
                raise ValueError(f"not plain YAML: nested more than {MAX_YAML_DEPTH} deep")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = size
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"not plain YAML: the alias {event.anchor} is unknown or stands in itself")
            size = sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            size = 1
            if event.anchor is not None:
                sizes[event.anchor] = size
        else:
            continue
        if open_nodes:
            open_nodes[-1] = (open_nodes[-1][0], open_nodes[-1][1] + size)
        total = max(total, size, open_nodes[-1][1] if open_nodes else 0)
        if total > MAX_YAML_NODES:
            raise ValueError(f"not plain YAML: more than {MAX_YAML_NODES} values once its aliases are written out")


def _without_waiting(path: str, flags: int) -> int:
    """Opening a FIFO would wait for somebody who writes."""
    return os.open(path, flags | os.O_NONBLOCK)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
    return kinds.get(stat.S_IFMT(mode), "special file")
