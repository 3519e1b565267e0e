"""Silence for what the libraries say at every run and no user of segkit can act on."""

import logging
import warnings

_CHATTY = (
    "lightning.pytorch.utilities.rank_zero",  # tips to install other products, devices found, max_epochs reached
    "lightning.pytorch.trainer.connectors.checkpoint_connector",
    "lightning.fabric.utilities.seed",
    "lightning.pytorch.accelerators.cuda",
    "lightning.fabric.utilities.distributed",
    "alembic",  # MLflow's tables, one line each
    "mlflow.store.db.utils",
)
_POINTLESS = (
    r".*does not have many workers.*",  # data.workers is segkit's own decision
    r".*ended before the epoch ended and your dataloader is not resumable.*",  # segkit's sampler is
    r".*smaller than the logging interval.*",
    r".*module\(s\) in eval mode at the start of training.*",
    r".*treespec, LeafSpec.*",  # a deprecation within Lightning
    r".*Trainer already configured with model summary callbacks.*",
    r".*GPU available but not used.*",
    r".*recommended to use `self.log\(.*sync_dist=True.*",  # what is logged is the same on every rank already
)


def quiet() -> None:
    """Raise the level of the chatty loggers to warnings and drop the pointless ones. Call once, before a trainer."""
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _POINTLESS:
        warnings.filterwarnings("ignore", message=message)
