"""The few pieces of HTML that a report is made of. Everything that comes from outside is escaped here."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

STYLE: Final = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { margin-top: 2.4rem; border-bottom: 1px solid #ddd; }
p.note { color: #555; } p.warning { background: #fff3cd; border-left: 4px solid #e0a800; padding: .5rem .8rem; }
table { border-collapse: collapse; margin: .8rem 0; } th, td { text-align: left; padding: .25rem .9rem .25rem 0; }
th { border-bottom: 2px solid #888; } td { border-bottom: 1px solid #e4e4e4; vertical-align: top; }
.number { text-align: right; } td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
img { max-width: 100%; height: auto; } figure { margin: 1rem 0; } figcaption { color: #555; }
div.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1.2rem 1rem; }
div.sheet figure { margin: 0; break-inside: avoid; } div.sheet img { background: #000; max-height: 15rem; }
div.sheet figcaption { font-size: .85rem; overflow-wrap: anywhere; } div.sheet b { color: #1c1c1c; }
span.mark { display: inline-block; width: .8em; height: .8em; margin-right: .4em; border: 1px solid #888; }
span.none { color: #b00020; font-weight: bold; }
div.row { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; }
@media print { details { display: none; } }
""".strip()


class Markup(str):
    """A piece of HTML made in this module, which is not escaped again."""


def page(title: str, sections: Iterable[str]) -> str:
    """A whole document that loads nothing from anywhere."""
    # The policy forbids scripts and the network, should a name in the data ever slip through as markup.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style></head><body>",
            *sections,
            "</body></html>",
            "",
        ]
    )


def heading(text: str) -> str:
    """The document's heading."""
    return f"<h1>{escape(text)}</h1>"


def section(title: str, *parts: str) -> str:
    """A heading and what belongs to it; nothing where there is nothing."""
    body = [part for part in parts if part]
    return "\n".join([f"<h2>{escape(title)}</h2>", *body]) if body else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers_from: int | None = None) -> str:
    """A table; columns from `numbers_from` on are set as numbers. Nothing where there are no rows."""
    start = len(head) if numbers_from is None else numbers_from

    def cells(row: Sequence[str], tag: str) -> str:
        marks = (' class="number"' if column >= start else "" for column in range(len(row)))
        return "".join(f"<{tag}{mark}>{_escaped(cell)}</{tag}>" for mark, cell in zip(marks, row, strict=True))

    lines = [f"<tr>{cells(row, 'td')}</tr>" for row in rows]
    if not lines:
        return ""
    return f"<table><thead><tr>{cells(head, 'th')}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def paragraph(text: str, *, kind: str = "") -> str:
    """A paragraph; `kind` is "note" or "warning"."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def picture(png: bytes, *, caption: str = "") -> str:
    """A PNG inside the document."""
    data = base64.b64encode(png).decode("ascii")
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">{text}</figure>'


def row_of(drawings: Iterable[str]) -> str:
    """Drawings of this package (`svg`) side by side, as many as fit; nothing where there are none."""
    parts = list(drawings)
    return f'<div class="row">{"".join(parts)}</div>' if parts else ""


def colour_mark(colour: str) -> Markup:
    """A small square of a colour, as a cell of a table or before a word."""
    return Markup(f'<span class="mark" style="background:{escape(colour)}"></span>')


def tile(png: bytes, *, title: str, remark: str, lines: Iterable[tuple[str, str, bool]]) -> str:
    """A small picture and what is known of it.

    Args:
        png: The picture.
        title: Its name.
        remark: Behind the name.
        lines: Colour, text, and whether that should strike the eye.
    """
    data = base64.b64encode(png).decode("ascii")
    parts = [f"<b>{escape(title)}</b> {escape(remark)}"]
    for colour, text, alarming in lines:
        words = f'<span class="none">{escape(text)}</span>' if alarming else escape(text)
        parts.append(f"{colour_mark(colour)}{words}")
    image = f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{'<br>'.join(parts)}</figcaption></figure>"


def grid_of(tiles: Iterable[str]) -> str:
    """Tiles side by side, as many as fit; nothing where there are none."""
    parts = list(tiles)
    return f'<div class="sheet">{"".join(parts)}</div>' if parts else ""


def folded(title: str, text: str) -> str:
    """Preformatted text behind a line that opens it; nothing where there is none."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>" if text.strip() else ""


def _escaped(text: str) -> str:
    return text if isinstance(text, Markup) else escape(text)
