"""The training proper: what `Trainer.fit` is given, and what is made of its errors."""

from pathlib import Path

from torch import distributed as dist

from segkit.errors import OutOfMemory
from segkit.planning.training_memory import can_recompute
from segkit.runs.checkpoints import newest_valid
from segkit.runs.directory import RunDirectory
from segkit.workflows.components import Components
from segkit.workflows.out_of_memory import explain_out_of_memory, is_out_of_memory, stage_of


def fit(parts: Components, *, checkpoint: Path | None) -> str:
    """Train, alone or as one of several ranks.

    Args:
        parts: Network, data, trainer.
        checkpoint: Where to go on, or None.

    Returns:
        Why training ended before its last epoch; empty where it did not.

    Raises:
        Preempted: A signal asked for the end; the state is saved.
        Diverged: Too many steps were not finite.
        OutOfMemory: The device or the machine has too little memory.
        SegkitError: What else ended it.
    """
    path = None if checkpoint is None else str(checkpoint)
    try:
        parts.trainer.fit(parts.module, datamodule=parts.datamodule, ckpt_path=path)
    except Exception as error:
        told = _out_of_memory(error, parts) or parts.datamodule.explained(error)
        if told is None:
            raise
        raise told from error
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()  # what follows, the first rank does alone
    return parts.reason


def _out_of_memory(error: Exception, parts: Components) -> OutOfMemory | None:
    trainer = parts.trainer
    if not is_out_of_memory(error):
        return None
    module = parts.module
    return explain_out_of_memory(
        error,
        plan=module.plan,
        stage=stage_of(error),
        device=str(trainer.strategy.root_device),
        accumulate=trainer.accumulate_grad_batches,
        checkpoint=newest_valid(RunDirectory(Path(trainer.default_root_dir)).checkpoints),
        recompute=can_recompute(module.network) is True,
    )
