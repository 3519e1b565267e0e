"""A request for more epochs is kept until its target is reached."""

from pathlib import Path

from segkit.runs.horizon import horizon


def test_without_a_request_the_configured_number_holds_and_may_grow(tmp_path: Path) -> None:
    path = tmp_path / "horizon.json"
    assert horizon(path, max_epochs=10, extra_epochs=0, epochs_done=0) == 10
    assert horizon(path, max_epochs=20, extra_epochs=0, epochs_done=10) == 20
    assert not path.exists()


def test_a_saved_1500_plus_1000_ends_at_2500_also_when_it_is_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "horizon.json"
    for done in (1500, 1700, 2499):
        assert horizon(path, max_epochs=1500, extra_epochs=1000, epochs_done=done) == 2500
    assert horizon(path, max_epochs=1500, extra_epochs=1000, epochs_done=2500) == 3500
    assert horizon(path, max_epochs=1500, extra_epochs=0, epochs_done=2600) == 3500


def test_asked_for_early_the_extra_epochs_follow_the_configured_ones(tmp_path: Path) -> None:
    assert horizon(tmp_path / "h.json", max_epochs=10, extra_epochs=5, epochs_done=0) == 15
