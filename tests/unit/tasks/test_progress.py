"""A progress bar shows on the terminal alone, and tells the rest of the time from its own start."""

import io
import sys
import time

import pytest

from sar_experiments.tasks.progress import counted, progress_bar


class Terminal(io.StringIO):
    """Standard output of a person."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Call it in the test: pytest puts its own standard output back before."""

    def opened():
        stream = Terminal()
        monkeypatch.setattr(sys, "stdout", stream)
        return stream

    return opened


def test_the_bar_is_on_the_terminal_and_not_in_the_log_that_standard_error_is(terminal, capfd):
    shown = terminal()
    with progress_bar("predict", unit="tile") as show:
        show(0, 40)
        time.sleep(0.15)
        show(20, 40)
    assert "predict:   0%" in shown.getvalue()
    assert "20/40" in shown.getvalue()
    assert capfd.readouterr().err == ""


def test_what_an_earlier_run_did_does_not_make_it_look_fast(terminal):
    """A thousand tiles were done: two more in two tenths of a second are ten a second, not 5000."""
    shown = terminal()
    with progress_bar("predict", unit="tile") as show:
        show(1000, 1010)
        time.sleep(0.2)
        show(1002, 1010)
    last = shown.getvalue().split("\r")[-3]
    assert "1002/1010" in last
    assert float(last.split(",")[-1].split("tile/s")[0]) < 15


def test_off_a_terminal_it_is_silent(monkeypatch):
    opened = io.StringIO()
    monkeypatch.setattr(sys, "stdout", opened)
    with progress_bar("predict", unit="tile") as show:
        show(1, 2)
    assert opened.getvalue() == ""


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 scenes"), (1, "1 scene"), (2, "2 scenes"), (10360, "10,360 scenes")]
)
def test_one_is_not_many(count, text):
    assert counted(count, "scene") == text
