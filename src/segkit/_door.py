"""The doors of segkit: each verb is a module that can be run, and called.

python -m segkit.train data.root=/my/dataset          exits with a code, messages on stderr
segkit.train(["data.root=/my/dataset"])                returns the run, raises exceptions
"""

import signal
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from segkit.configuration.entry import call, main


class Door(ModuleType):
    """A module that runs its verb when called."""

    def __call__(self, overrides: Sequence[str] = ()) -> Any:  # noqa: ANN401  what the workflow returns
        """Run the verb with overrides as on the command line, and return what it made.

        Raises:
            UsageError: All that is wrong with the overrides, at once.
            SegkitError: What else the user can mend.
        """
        return call(self.__name__.rpartition(".")[2], overrides)


def open_door(name: str, verb: str) -> None:
    """Make the module `name` callable; where it is being run, run the verb and leave with its exit code."""
    if name == "__main__":
        code = main(verb, sys.argv[1:])
        # All is said and done; Python's own handler would now print a traceback from within its clean-up.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.exit(code)
    sys.modules[name].__class__ = Door
