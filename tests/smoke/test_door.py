"""The door opens from a checkout, from a wheel and to users' own files, and completes with Tab."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
SCRIPT = Path(sys.executable).with_name("sar-experiments")


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("usecase=sh", "usecase=ships"),
        ("solver.base", "solver.base_lr="),
        ("augment=", "augment=sar_ships"),
    ],
)
def test_the_console_script_completes_with_tab(typed, offered):
    shell = f"""
        eval "$({SCRIPT} -sc install=bash)"
        COMP_LINE="sar-experiments {typed}" COMP_POINT=99
        COMP_WORDS=({SCRIPT} {typed}) COMP_CWORD=1
        hydra_bash_completion
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environment = {**os.environ, "PATH": f"{SCRIPT.parent}:{os.environ['PATH']}"}
    process = run(["bash", "-c", shell], env=environment)
    assert offered in process.stdout.split(), process.stderr


def test_users_own_files_are_found_through_the_environment(tmp_path):
    (tmp_path / "usecase").mkdir()
    (tmp_path / "usecase" / "mine.yaml").write_text("defaults: [ships, _self_]\nname: mine\n")
    process = run(
        [sys.executable, "-m", "sar_experiments", "usecase=mine", "--cfg", "job"],
        cwd=tmp_path,
        env={**os.environ, "SAR_CONF_PATH": str(tmp_path)},
    )
    assert process.returncode == 0, process.stderr
    assert "name: mine" in process.stdout


def test_users_own_files_are_found_through_an_option(tmp_path):
    (tmp_path / "solver").mkdir()
    (tmp_path / "solver" / "long.yaml").write_text("defaults: [ships, _self_]\nmax_iter: 77\n")
    door = [sys.executable, "-m", "sar_experiments", "--config-dir", str(tmp_path)]
    process = run([*door, "solver=long", "--cfg", "job"], cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "max_iter: 77" in process.stdout


def test_the_resolved_config_is_shown_with_the_command_lines_value():
    door = [sys.executable, "-m", "sar_experiments", "usecase=infra", "solver.base_lr=2e-4"]
    process = run([*door, "--cfg", "job", "--resolve"])
    assert "BASE_LR: 0.0002" in process.stdout
    assert "max_iter: 30000" in process.stdout


def test_options_may_stand_between_overrides():
    door = [sys.executable, "-m", "sar_experiments", "usecase=infra", "--cfg", "job"]
    process = run([*door, "seed=77", "--resolve", "solver.max_iter=7"])
    assert process.returncode == 0, process.stderr
    assert "seed: 77" in process.stdout
    assert "MAX_ITER: 7" in process.stdout


@pytest.mark.slow  # builds a wheel, for which it needs a package index
def test_a_wheel_brings_its_own_conf(tmp_path):
    for name in ("sar_experiments", "conf"):
        shutil.copytree(CHECKOUT / name, tmp_path / "source" / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, tmp_path / "source" / name)
    uv = Path(sys.executable).with_name("uv")
    built = run([uv, "build", "--wheel", "-o", tmp_path / "dist", tmp_path / "source"])
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "installed", "zip")
    (tmp_path / "empty").mkdir()
    process = run(
        [sys.executable, "-m", "sar_experiments", "--info", "searchpath"],
        cwd=tmp_path / "empty",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
    )
    assert str(tmp_path / "installed" / "sar_experiments" / "conf") in process.stdout


def test_a_bare_command_shows_the_help_and_trains_nothing(tmp_path):
    door = [sys.executable, "-m", "sar_experiments"]
    process = subprocess.run(door, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "Groups and their options" in process.stdout
    assert not list(tmp_path.iterdir())
