"""Progress on a terminal, silence elsewhere."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(title: str, *, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yield what to call with the number done and the number in all; silent off a terminal.

    The bar begins with the first call: what was done before says nothing of how fast it goes. It
    is drawn on standard output, since a task's standard error is its log file.
    """
    with contextlib.ExitStack() as stack:
        bar: tqdm[object] | None = None

        def show(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:
                bar = stack.enter_context(_bar(title, unit, done=done, total=total))
            bar.total = total
            bar.update(done - bar.n)

        yield show


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: 1 scene, 2 scenes."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _bar(title: str, unit: str, *, done: int, total: int) -> tqdm[object]:
    return tqdm(
        desc=title,
        unit=unit,
        initial=done,
        total=total,
        file=sys.stdout,
        disable=not sys.stdout.isatty(),
        dynamic_ncols=True,
        leave=False,
    )
