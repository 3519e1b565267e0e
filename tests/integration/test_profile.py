import re

from segkit.callbacks.step_phases import PHASES
from segkit.workflows.train import run


def test_a_profiled_run_keeps_and_prints_where_its_steps_go(run_config, capsys, tmp_path):
    run(run_config("p", "trainer.profiler=step", "trainer.max_epochs=1", "trainer.steps_per_epoch=8"))
    folder = tmp_path / "runs" / "p"
    table = (folder / "profile" / "table.txt").read_text()
    printed = capsys.readouterr().out
    assert table in printed
    assert str(folder / "profile" / "trace.json") not in printed  # too short for one: none is named
    times = dict(re.findall(r"^(\S[a-z ]*?) {2,}([0-9.]+) ", table, flags=re.MULTILINE))
    assert list(times) == ["phase", *PHASES, "step"][1:]
    busy = {"augmentation", "forward", "loss", "backward", "guard and clip", "optimizer"}
    assert all(float(times[phase]) > 0 for phase in busy), times
    assert (folder / "report.html").is_file()
    assert (folder / "per_case.csv").is_file()
