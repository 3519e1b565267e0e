import io

from segkit.workflows import tile_bar
from segkit.workflows.tile_bar import TileBar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_share_of_passes_on_a_terminal(monkeypatch):
    monkeypatch.setattr(tile_bar, "_EVERY_S", 0.0)
    terminal = Terminal()
    bar = TileBar(terminal)
    bar.begin("[1/2] anna", 4)
    for _ in range(6):  # more than were counted: tiles a pass were lowered
        bar.step()
    bar.clear()
    shown = terminal.getvalue().split("\r\x1b[K")
    assert [text.split()[-1] for text in shown if text] == ["0%", "25%", "50%", "75%", "100%", "100%"]
    assert "[1/2] anna" in shown[1]
    assert shown[-1] == ""
    assert "\n" not in terminal.getvalue()


def test_nothing_elsewhere():
    file = io.StringIO()
    bar = TileBar(file)
    bar.begin("[1/2] anna", 4)
    bar.step()
    bar.clear()
    assert file.getvalue() == ""
