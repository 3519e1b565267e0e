"""The journal of a run, which is the truth, and MLflow, which is its copy.

MLflow reads the variable below when it is imported, so it is set here, before any module of this package imports
it: telemetry is off unless the user turned it on.
"""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
