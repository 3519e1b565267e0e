import pytest

from segkit.planning.plan import Normalisation, Plan
from segkit.types import Labels


@pytest.fixture
def plan() -> Plan:
    """A plan as small as the networks take."""
    return Plan(
        name="tiny",
        dimensions=3,
        channels=("MRI",),
        labels=Labels(("background", "anterior", "posterior"), (0, 1, 2)),
        spacing=(1.0, 1.0, 1.0),
        unit="mm",
        normalisation=(Normalisation("zscore"),),
        patch_size=(16, 16, 16),
        batch_size=2,
        features=(4, 8),
        strides=((1, 1, 1), (2, 2, 2)),
        kernel_sizes=((3, 3, 3), (3, 3, 3)),
        blocks_per_stage=(1, 1),
        batch_dice=True,
        steps_per_epoch=2,
        max_epochs=1,
        learning_rate=2e-3,
        validation_every_n_epochs=1,
        precision="32-true",
        tile_batch=1,
        flip_axes=(0, 1, 2),
    )
