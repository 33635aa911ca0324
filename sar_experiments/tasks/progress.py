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
    """Yield what to call with the number done and the number in all; silent off a terminal."""
    with tqdm(desc=title, unit=unit, disable=not sys.stdout.isatty(), leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
