"""A source means run folders, each once; what cannot be compared is listed, never dropped."""

from pathlib import Path

import pytest

from sar_experiments import run_folder
from sar_experiments.errors import ConfigError
from sar_experiments.report.runs import find_runs, told_apart


def names(found):
    return [run.name for run in found.measured]


def find(*sources):
    source = str(sources[0]) if len(sources) == 1 else [str(each) for each in sources]
    return find_runs(source, metric="AP50", stalled_s=900)


@pytest.fixture
def write(tmp_path):
    def result(name, *overrides, **values):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        known = {"status": "completed", "task": "train", "metrics": {"AP50": 0.5}}
        values = {**known, "overrides": list(overrides), **values}
        run_folder.write_result(folder, run_folder.Result(**values))
        return folder

    return result


def test_a_source_is_a_run_a_sweep_a_pattern_or_a_list_and_each_run_counts_once(write, tmp_path):
    one = write("s/1", metrics={"AP50": 0.9})
    write("s/2", metrics={"AP50": 0.4})
    other = write("other", metrics={"AP50": 0.6})
    assert names(find(one)) == ["1"]
    assert names(find(one / "result.json")) == ["1"]
    assert names(find(tmp_path / "s")) == ["1", "2"]
    assert names(find(tmp_path)) == ["s/1", "other", "s/2"]
    assert names(find(tmp_path / "s" / "*")) == ["1", "2"]
    assert names(find(one, tmp_path / "s", other)) == ["s/1", "other", "s/2"]


def test_a_link_to_a_run_is_that_run(write, tmp_path):
    one = write("s/1")
    (tmp_path / "s" / "again").symlink_to(one)
    assert len(find(tmp_path / "s").measured) == 1


@pytest.mark.parametrize("source", ["nothing", "nothing*"])
def test_a_source_that_is_not_there_is_a_mistake(tmp_path, source):
    with pytest.raises(ConfigError, match="nothing is there"):
        find(tmp_path / source)


def test_a_folder_without_a_run_to_compare_is_a_mistake_that_says_what_was_found(write, tmp_path):
    write("p", task="predict", metrics={"objects": 3.0})
    with pytest.raises(ConfigError, match=r"1 of task=predict.*accepted are a run folder"):
        find(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match="found: no run"):
        find(empty)


def test_what_was_measured_on_scenes_is_not_compared_with_images(write, tmp_path):
    write("images")
    write("scene", task="evaluate", metrics={"AP50": 0.9, "scenes": 1.0})
    found = find(tmp_path)
    assert names(found) == ["images"]
    assert found.left_out == {"evaluate": 1}


def test_runs_that_did_not_end_well_are_listed_and_other_tasks_counted(write, tmp_path):
    write("good")
    for status in ("failed", "diverged", "pruned", "interrupted"):
        write(status, status=status, why=f"because {status}")
    write("lost", status="running", host="elsewhere")
    write("p", task="predict", metrics={})
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "result.json").write_text("{")
    found = find(tmp_path)
    assert names(found) == ["good"]
    told = {run.state: run.result.why for run in found.others}
    assert told.pop("running") == ""
    assert told == {s: f"because {s}" for s in ("failed", "diverged", "pruned", "interrupted")}
    assert found.unread == (broken,)
    assert found.left_out == {"predict": 1}


def test_a_run_without_a_process_is_dead(write, tmp_path):
    import os
    import socket

    folder = write("lost", status="running", host=socket.gethostname(), pid=1, pid_start=-1)
    os.utime(folder / "result.json", (1.7e9, 1.7e9))
    write("good")
    assert [run.state for run in find(tmp_path).others] == ["dead"]


def test_runs_that_differ_by_seed_or_place_alone_are_of_one_setting(folders):
    folders.run("a", seed=1)
    folders.run("b", seed=2)
    folders.run("c", seed=1, lr=0.2)
    settings = {run.name: run.setting for run in find(folders.runs).measured}
    assert settings["a"] == settings["b"] != settings["c"]


def test_without_a_config_the_overrides_tell_settings_apart(write, tmp_path):
    write("a", "solver.base_lr=1", "seed=1", "output=a", "hardware=cpu")
    write("b", "solver.base_lr=1", "seed=2", "output=b", "hardware=gpu")
    write("c", "solver.base_lr=2", "seed=1")
    settings = {run.name: run.setting for run in find(tmp_path).measured}
    assert settings["a"] == settings["b"] == "solver.base_lr=1"
    assert settings["c"] == "solver.base_lr=2"


def test_runs_are_told_apart_by_what_differs_among_them(write, tmp_path):
    write("a", "usecase=infra", "solver.base_lr=1", "seed=1")
    write("b", "usecase=infra", "solver.base_lr=2", "seed=2")
    write("c", "usecase=ships")
    runs = [run for run in find(tmp_path).measured if run.name != "c"]
    assert {run.name: run.label for run in told_apart(runs)} == {
        "a": "solver.base_lr=1",
        "b": "solver.base_lr=2",
    }


def test_a_broken_config_harms_nobody(write, tmp_path):
    folder = write("a")
    (folder / "config.yaml").write_text("a: [1, {")
    (run,) = find(tmp_path).measured
    assert run.config == {}
    assert run.seed is None
    assert run.folder == Path(folder)
