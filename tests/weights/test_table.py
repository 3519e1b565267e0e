"""The table of a transfer: every tensor in the file, every reason on the screen."""

from segkit.weights.source import Source
from segkit.weights.table import notes, summary, table
from segkit.weights.transfer import Row, Transfer

SOURCE = Source({}, "nnunet", "a checkpoint", overrides=("network=unet", "plan.features=[4]"))
ROWS = (
    Row("a.weight", "loaded"),
    Row("b.weight", "adapted", "kernel 1 to 3"),
    Row("c.weight", "initial", "2 in the file, 3 here"),
    Row("d.weight", "initial", "not in the file"),
    Row("d.bias", "initial", "not in the file"),
    Row("e", "unused", "not in this network"),
)
FOUND = Transfer({}, ROWS)


def test_the_line_counts_every_tensor():
    assert summary(FOUND, SOURCE) == "1 loaded, 1 adapted, 3 initial, 1 unused tensors of a checkpoint"
    assert summary(Transfer({}, ROWS[:1]), SOURCE) == "1 loaded tensors of a checkpoint"


def test_notes_give_one_line_a_reason_and_what_builds_the_files_own_network():
    assert notes(FOUND, SOURCE) == [
        "adapted: b.weight: kernel 1 to 3",
        "initial: d.weight and 1 more: not in the file",
        "initial: c.weight: 2 in the file, 3 here",
        "the file's own network is built by network=unet plan.features=[4]",
    ]
    assert notes(Transfer({}, ROWS[:1]), SOURCE) == []
    many = Transfer({}, tuple(Row(f"t{i}", "adapted", f"reason {i}") for i in range(9)))
    assert len(notes(many, SOURCE)) == 4
    assert notes(many, SOURCE)[-1] == "and 6 more reasons in weights.txt"


def test_the_table_has_a_line_a_tensor():
    lines = table(FOUND, SOURCE, path="/w.pth", sha256="abc").splitlines()
    assert lines[0].split() == ["weights", "/w.pth"]
    assert lines[1].split() == ["sha256", "abc"]
    assert [line.split()[:2] for line in lines[4:]] == [[row.fate, row.name] for row in ROWS]
    assert lines[5].endswith("kernel 1 to 3")
