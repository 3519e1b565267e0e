"""Prepared data for the rows that begin with it: made once a run, by each project's own command."""

from benchmarks import ours
from benchmarks.bench import Bench
from benchmarks.peers import nnunet


def prepare_both(bench: Bench) -> None:
    """Prepare the data for nnU-Net and for us; found again by every process of this run."""
    nnunet.prepared(bench)
    ours.prepared(bench)
