"""The runs that the whole program is tried with."""

from tests.runs_of_phantoms import assert_bitwise_equal, end_state, run_config, stop_after

__all__ = ["assert_bitwise_equal", "end_state", "run_config", "stop_after"]
