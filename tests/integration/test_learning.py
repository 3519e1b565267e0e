"""It learns: on phantoms that a threshold solves, a few seconds of training find the balls."""

from segkit.workflows.train import run


def test_a_short_run_finds_the_phantoms_balls(run_config):
    trained = run(
        run_config(
            "learns", "trainer.max_epochs=2", "trainer.steps_per_epoch=40", "augmentation=none", "optimizer.lr=1e-2"
        )
    )
    assert trained.score > 0.6


def test_early_stopping_says_why(run_config, capsys):
    run(
        run_config(
            "stops", "trainer.max_epochs=9", "trainer.steps_per_epoch=1", "optimizer.lr=1e-9",
            "early_stopping.patience=1", "early_stopping.warmup_epochs=1", "early_stopping.cooldown_epochs=0",
            "early_stopping.min_delta=0.1",
        )
    )  # fmt: skip
    out = capsys.readouterr().out
    assert "has not risen by more than 0.1 for 1 epochs" in out
