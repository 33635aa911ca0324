"""Tables in HTML; every value is escaped here."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LONG = 40  # letters from which a cell breaks into lines


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: Iterable[int]) -> str:
    """Return a table; columns that hold words are aligned to the left, numbers to the right."""
    left = frozenset(words)
    classes = [' class="word"' if index in left else "" for index in range(len(head))]
    first = "".join(f"<th{c}>{escape(each)}</th>" for c, each in zip(classes, head, strict=True))
    lines = "".join(
        f"<tr>{''.join(_cell(v, k in left) for k, v in enumerate(row))}</tr>" for row in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{first}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def without_repeats(rows: Sequence[Sequence[str]], *, columns: int) -> list[list[str]]:
    """Blank the first columns where they say what the row above says."""
    above: Sequence[str] = ()
    blanked = []
    for row in rows:
        is_same = list(row[:columns]) == list(above[:columns])
        blanked.append([*([""] * columns if is_same else row[:columns]), *row[columns:]])
        above = row
    return blanked


def _cell(value: str, is_word: bool) -> str:
    names = "word long" if is_word and len(value) > _LONG else "word" if is_word else ""
    return f'<td class="{names}">{escape(value)}</td>' if names else f"<td>{escape(value)}</td>"
