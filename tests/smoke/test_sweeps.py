"""A sweep runs each job in a process of its own; one that fails costs itself alone."""

import json
import shutil

import pytest

pytestmark = [pytest.mark.detectron2, pytest.mark.slow]


@pytest.fixture(scope="module")
def sweep(call, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "rates"
    arguments = ("solver.base_lr=0.01,1e3", "hardware.jobs=2", f"output={folder}")
    return folder, call("--multirun", *arguments), arguments


def results(folder):
    found = folder.glob("*/result.json")
    return {path.parent.name[:6]: json.loads(path.read_text()) for path in found}


def test_a_diverged_job_leaves_the_others_alone(sweep):
    folder, process, _ = sweep
    status = {name: result["status"] for name, result in results(folder).items()}
    assert status == {"0_demo": "completed", "1_demo": "diverged"}
    assert process.returncode == 1


def test_the_console_says_what_each_job_does_and_how_it_ends(sweep):
    _, process, _ = sweep
    assert "[job 0] start on the CPU, 1 of" in process.stdout
    assert "[job 0] completed after" in process.stdout
    assert "[job 1] diverged after" in process.stdout
    assert "Traceback" not in process.stderr + process.stdout


def test_a_summary_holds_both_jobs_best_first(sweep):
    folder, process, _ = sweep
    table = (folder / "summary.csv").read_text().splitlines()
    assert table[0].startswith("job,status,solver.base_lr")
    assert [line.split(",")[1:3] for line in table[1:]] == [
        ["completed", "0.01"],
        ["diverged", "1000.0"],
    ]
    assert "leaderboard of" in process.stdout


def test_the_same_command_again_repeats_a_diverged_job_only_when_asked(sweep, call):
    folder, _, arguments = sweep
    before = results(folder)
    again = call("--multirun", *arguments)
    assert again.returncode == 1
    assert results(folder) == before
    again = call("--multirun", *arguments, "sweep.rerun_diverged=true")
    after = results(folder)
    assert again.returncode == 1
    assert after["0_demo"] == before["0_demo"]
    assert after["1_demo"]["started"] > before["1_demo"]["started"]
    assert "completed already" in again.stdout


def test_a_run_that_lags_behind_is_given_up_and_not_repeated(call, tmp_path):
    first = call("--multirun", f"output={tmp_path}", "sweep.prune=median")
    assert first.returncode == 0, first.stdout + first.stderr
    (lagging,) = (path.parent for path in tmp_path.glob("*/result.json"))
    for number in range(4):
        other = tmp_path / f"{number}_other"
        other.mkdir()
        shutil.copy(lagging / "config.yaml", other)
        (other / "metrics.jsonl").write_text('{"iteration": 5, "val/AP50": 0.9}\n')
    shutil.rmtree(lagging)
    again = call("--multirun", f"output={tmp_path}", "sweep.prune=median")
    assert again.returncode == 0, again.stdout + again.stderr
    result = json.loads((lagging / "result.json").read_text())
    assert result["status"] == "pruned"
    assert result["why"].startswith("pruned after step 6: best AP50 0.")
    assert result["metrics"]["AP50"] < 0.9
    log = (lagging / "train.log").read_text()
    assert log.count("training: 12 steps") == 1  # its console is that file: no line stands twice
    assert "pruned already" in call("--multirun", f"output={tmp_path}", "sweep.prune=median").stdout


def test_a_training_in_parts_goes_all_the_way(call, tmp_path):
    process = call(f"output={tmp_path / 'run'}", "solver.accumulate_steps=2")
    assert process.returncode == 0, process.stdout + process.stderr
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["iteration"] == 11
    refused = call("solver.accumulate_steps=3", f"output={tmp_path / 'other'}")
    assert refused.returncode == 2
    assert "must divide the 2 images per step" in refused.stderr
