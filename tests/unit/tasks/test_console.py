"""What a terminal shows: a line that is logged while a bar is on the screen stands on its own, and
where the console is train.log, as in a sweep, it stands there once.
"""

import io
import logging
import subprocess
import sys

import pytest
from tqdm import tqdm

from sar_experiments.tasks.__main__ import BesideBars


class Terminal(io.StringIO):
    """A terminal of one line that overwrites: keeps the finished lines and the present one."""

    def lines(self):
        return [line.rpartition("\r")[2].rstrip() for line in self.getvalue().split("\n")]


def test_a_logged_line_does_not_run_into_the_progress_bar():
    terminal = Terminal()
    logger = logging.getLogger("of the console test")
    logger.setLevel(logging.INFO)
    logger.addHandler(BesideBars(terminal))
    with tqdm(total=10, desc="train", file=terminal, ascii=True, ncols=60, mininterval=0) as bar:
        bar.update(4)
        logger.info("val after step 4")
        *before, shown = terminal.lines()
        assert before == ["val after step 4"]
        assert shown.startswith("train:  40%")


SAY = """
import logging, pathlib, sys
from sar_experiments.tasks.__main__ import log_to
log_to(pathlib.Path(sys.argv[1]))
logging.getLogger("sar_experiments.somewhere").info("a decision")
"""


@pytest.mark.parametrize("console", ["train.log", "elsewhere.txt"])
def test_train_log_and_console_hold_each_line_once(tmp_path, console):
    with (tmp_path / console).open("ab") as file:
        subprocess.run([sys.executable, "-c", SAY, str(tmp_path)], stdout=file, check=True)
    assert (tmp_path / "train.log").read_text().count("a decision") == 1
    assert (tmp_path / console).read_text().count("a decision") == 1
