"""Signals that ask a run to stop."""

from __future__ import annotations

import signal


class Interruption:
    """Remembers SIGTERM and SIGINT; while training they wait for the end of the step.

    Attributes:
        requested: Somebody asked to stop.
        can_wait: The work going on looks at ``requested`` by itself.
    """

    def __init__(self) -> None:
        self.requested = False
        self.can_wait = False

    def install(self) -> None:
        """Catch both signals in this process."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self.requested = True
        if not self.can_wait:
            raise KeyboardInterrupt
