"""Validation apart from the training process: `python -m segkit._evaluator RUN_DIR step-00000006 PARENT_PID`."""

import importlib
import sys

from segkit.runs.lifeline import die_with, killed_with_parent

if __name__ == "__main__":
    # Before torch is imported, which takes seconds: the training may end in them.
    killed_with_parent()
    die_with(int(sys.argv[3]))
    sys.exit(importlib.import_module("segkit.workflows.evaluator").main(sys.argv[1:3]))
