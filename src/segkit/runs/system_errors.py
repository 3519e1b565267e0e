"""What the system said about a write that failed, dug out of what a library made of it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

_NUMBER = re.compile(r"\(os error (\d+)\)")


@contextmanager
def as_the_system_said(path: Path) -> Iterator[None]:
    """Turn a library's own error about a failed write to `path` back into the system's.

    safetensors raises SafetensorError("... (os error 28)"), torch RuntimeError("unexpected pos ..."), and neither is
    an OSError that a caller could tell from a bug.

    Raises:
        OSError: With the system's number and a path; any other error goes its way unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
    except (SafetensorError, RuntimeError) as error:
        cause = error.__context__
        found = _NUMBER.search(str(error))
        number = cause.errno if isinstance(cause, OSError) else int(found[1]) if found else None
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error
