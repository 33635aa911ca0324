"""Signals that ask a run to stop."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from sar_experiments.supervisor import STOP_SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable


class Interruption:
    """Remembers the signals that ask to stop; while training they wait for the end of the step.

    Attributes:
        requested: Somebody asked to stop.
        can_wait: The work going on looks at ``requested`` by itself.
        pass_on: Called at each request, for processes that must hear of it too.
    """

    def __init__(self) -> None:
        self.requested = False
        self.can_wait = False
        self.pass_on: Callable[[], None] | None = None

    def install(self) -> None:
        """Catch them in this process."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self.requested = True
        if self.pass_on is not None:
            self.pass_on()
        if not self.can_wait:
            raise KeyboardInterrupt
