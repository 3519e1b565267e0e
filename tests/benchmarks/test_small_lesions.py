"""One large lesion found and twenty small ones missed: Dice hardly notices, losses by component do."""

import pytest
from benchmarks.small_lesions import FOUND, MISSED, SMALL, draw, logits, losses, scene

from segkit.losses.blob import BlobLoss
from segkit.losses.region_dice import RegionDiceLoss


def test_the_scene_is_what_it_says():
    target = scene()
    assert target.num_instances == 1 + SMALL
    assert target.instances.flatten().bincount()[1:].tolist() == [43 * 43] + [12] * SMALL


def test_dice_hardly_notices_what_losses_by_component_show():
    target = scene()
    prediction = logits(target, found=0)
    named = losses()
    # Dice of a lesion: 2 p / (p + 1).
    large, small = 2 * FOUND / (FOUND + 1), 2 * MISSED / (MISSED + 1)
    assert named["Dice"](prediction, target).item() == pytest.approx(0.06, abs=0.01)
    by_component = 1 - (large + SMALL * small) / (1 + SMALL)
    assert by_component == pytest.approx(0.78, abs=0.005)
    for loss in (named["blob Dice"], RegionDiceLoss()):
        assert loss(prediction, target).item() == pytest.approx(by_component, abs=0.01)
    for loss in (named["component Dice + CE"], BlobLoss()):
        assert loss(prediction, target) > 4 * named["Dice + CE"](prediction, target)


def test_finding_them_brings_every_loss_down():
    target = scene()
    for loss in losses().values():
        values = [loss(logits(target, found=found), target) for found in (0, 5, SMALL)]
        assert values[0] > values[1] > values[2]


def test_the_picture_is_drawn(tmp_path):
    draw(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
