"""Stores for the tests of the copy."""

from tests.mlflow_stores import make_store
from tests.runs_of_phantoms import run_config

__all__ = ["make_store", "run_config"]
