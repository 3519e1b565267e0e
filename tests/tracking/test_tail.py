from segkit.tracking.journal import Journal, Row
from segkit.tracking.tail import Tail


def test_tail_reads_what_is_new_and_all_again_after_a_cut(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl", tmp_path / "timings.jsonl")
    tail = Tail(journal.metrics_path)
    assert tail.new() == []
    journal.metrics({"a": 1.0}, n=1, step=1, epoch=1)
    assert [row.n for row in tail.new()] == [1]
    assert tail.new() == []
    line = Row(2, 2, 1, "a", 2.0).to_line()
    with journal.metrics_path.open("a") as file:
        file.write(line[:20])
        file.flush()
        assert tail.new() == []  # half a line is not there yet
        file.write(line[20:] + "no row\n")
    assert [row.n for row in tail.new()] == [2]
    journal.cut(1)
    assert [row.n for row in tail.new()] == [1]
    journal.metrics({"a": 3.0}, n=2, step=2, epoch=1)
    assert [row.value for row in tail.new()] == [3.0]
