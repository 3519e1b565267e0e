"""Stores for the tests of the copy."""

from tests.mlflow_stores import make_store

__all__ = ["make_store"]
