"""The console script: `segkit VERB key=value ...` becomes `python -m segkit.VERB key=value ...`.

It replaces its own process, so that both are one process image: signals, exit codes and what other programs
see do not depend on which was typed.
"""

import difflib
import os
import sys

from segkit import VERBS, __version__
from segkit.configuration.help import render_overview
from segkit.configuration.tree import Tree, config_dir
from segkit.errors import ExitCode


def main() -> int:
    """Run a verb, or say which there are; returns only where no verb was run."""
    verb, *rest = sys.argv[1:] or ["--help"]
    if verb in ("-h", "--help", "help"):
        sys.stdout.write(render_overview(Tree((config_dir(),)), VERBS))
        return ExitCode.DONE
    if verb == "--version":
        sys.stdout.write(f"segkit {__version__}\n")
        return ExitCode.DONE
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        sys.stderr.write(f"There is no verb {verb!r}.{hint} Verbs: {', '.join(VERBS)}.\n")
        return ExitCode.USAGE
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", f"segkit.{verb}", *rest])


if __name__ == "__main__":
    sys.exit(main())
