"""A search goes on with its study: what was cut off first, then only what is missing."""

import contextlib
import os
import sqlite3
import subprocess
import sys

import pytest

from sar_experiments import studies

optuna = pytest.importorskip("optuna")

PARENT = """
import sys
from sar_experiments import studies, sweeping
with sweeping.parent():
    print(studies.storage(sys.argv[1]))
"""


@pytest.fixture
def study(tmp_path):
    """A study of two completed, one failed and one trial that was cut off."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=studies.storage(str(tmp_path)), study_name="sar_experiments"
    )
    for end in ("COMPLETE", "FAIL", "COMPLETE"):
        trial = study.ask()
        trial.suggest_float("lr", 0, 1)
        value = 1.0 if end == "COMPLETE" else None
        study.tell(trial, value, state=optuna.trial.TrialState[end])
    study.ask().suggest_float("lr", 0.25, 0.25)
    return study


def states(folder):
    with contextlib.closing(sqlite3.connect(folder / "optuna.db")) as base:
        return [state for (state,) in base.execute("SELECT state FROM trials ORDER BY number")]


@pytest.mark.usefixtures("study")
def test_completed_trials_of_earlier_calls_count(tmp_path):
    assert studies.trials_left(str(tmp_path), 20) == 18
    assert studies.trials_left(str(tmp_path), 1) == 0


def test_a_new_or_broken_study_has_all_trials_to_come(tmp_path):
    assert studies.trials_left(str(tmp_path / "nowhere"), 20) == 20
    (tmp_path / "optuna.db").write_bytes(b"broken")
    assert studies.trials_left(str(tmp_path), 20) == 20


@pytest.mark.usefixtures("study")
def test_a_trial_that_was_cut_off_is_asked_for_again_with_its_values(tmp_path):
    studies.storage(str(tmp_path))  # no sweep runs here: only a sweep's parent changes the study
    assert states(tmp_path)[-1] == "RUNNING"
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == f"sqlite:///{tmp_path}/optuna.db"
    assert states(tmp_path) == ["COMPLETE", "FAIL", "COMPLETE", "WAITING"]
    again = optuna.load_study(study_name="sar_experiments", storage=done.stdout.strip())
    trial = again.ask()
    assert trial.number == 3
    assert trial.suggest_float("lr", 0.25, 0.25) == 0.25
