"""What is wrong with a command line: one record a fault, gathered and told all at once."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from segkit.errors import UsageError


@dataclass(frozen=True)
class Problem:
    """One fault.

    Args:
        text: What the user wrote, or the key that is concerned.
        why: What is wrong with it.
        hint: What was probably meant.
        key: Key that is concerned, where there is one.
        suggestion: Key that was probably meant, where there is one.
    """

    text: str
    why: str
    hint: str = ""
    key: str = ""
    suggestion: str = ""

    def __str__(self) -> str:
        """One line."""
        return f"{self.text}: {self.why}." + (f" {self.hint}" if self.hint else "")


def usage_error(verb: str, problems: Sequence[Problem]) -> UsageError:
    """All problems as one error."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"{number:>4}  {problem}" for number, problem in enumerate(problems, start=1)]
    return UsageError(
        "\n".join([f"{count} with the configuration of segkit.{verb}", *lines]),
        mend=f"python -m segkit.{verb} --help lists every key with its type, unit and meaning",
    )


def nearest_word(word: str, words: Iterable[str]) -> str:
    """The most similar word, or an empty string where none is similar."""
    folded = {_fold(candidate): candidate for candidate in words}
    near = difflib.get_close_matches(_fold(word), folded, n=1, cutoff=0.6)
    return folded[near[0]] if near else ""


def nearest_key(key: str, keys: Iterable[str]) -> str:
    """The key that was probably meant, or an empty string.

    The same last part elsewhere (`lr` for `optimizer.lr`) comes first; then a similar one in the same section,
    where there is such a section, or else a similar key (`optimzer.rate`); then a similar last part elsewhere
    (`batchsize` for `plan.batch_size`).
    """
    known = [candidate for candidate in keys if not key.startswith(f"{candidate}.")]
    last = key.rpartition(".")[2]
    same = [candidate for candidate in known if candidate.rpartition(".")[2] == last]
    if same:
        return max(same, key=lambda candidate: difflib.SequenceMatcher(None, key, candidate).ratio())
    section = key.rpartition(".")[0]
    beside = [candidate for candidate in known if section and candidate.rpartition(".")[0] == section]
    if not beside and (whole := nearest_word(key, known)):
        return whole
    parts = {candidate.rpartition(".")[2]: candidate for candidate in beside or known}
    return parts.get(nearest_word(last, parts), "")


def _fold(word: str) -> str:
    return word.lower().replace("-", "_")
