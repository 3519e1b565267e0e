"""The journal of a run, which is the truth, and MLflow, which is its copy.

MLflow reads the two variables below when it is imported, so they are set here, before any module of this package
imports it. Telemetry is off unless the user turned it on; a server that does not answer is asked twice, not seven
times.
"""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
