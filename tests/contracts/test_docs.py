"""The documents hold what they point at."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *(path for path in sorted(ROOT.glob("*.md")))]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_there_are_pages():
    assert ROOT / "docs/index.md" in PAGES


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(path):
    links = [link for link in LINK.findall(path.read_text()) if not link.startswith(("http://", "https://", "mailto:"))]
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_every_decision_is_listed_and_fits_on_a_page():
    index = (ROOT / "docs/index.md").read_text()
    decisions = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [path.name for path in decisions if f"decisions/{path.name}" not in index] == []
    assert [path.name for path in decisions if len(path.read_text().split()) > 500] == []
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))


def test_every_make_target_that_a_page_names_exists():
    made = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = set(re.findall(r"^  make ([a-z-]+)", made, flags=re.MULTILINE))
    named = {word for path in PAGES for word in re.findall(r"`make ([a-z-]+)", path.read_text())}
    assert {"setup", "demo", "test", "check"} <= targets
    assert named <= targets


def test_the_changelog_has_numerics_under_its_newest_heading():
    newest = (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1]
    assert "### Numerics" in newest
