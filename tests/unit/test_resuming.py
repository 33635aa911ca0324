"""A run is resumed by its folder; what may not change is named; the printed command works."""

import logging
import shlex

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from sar_experiments import cli, resuming, run_folder
from sar_experiments.config import to_yaml
from sar_experiments.errors import ConfigError
from sar_experiments.job import Job, _check_goes_on, _is_finished

COMPOSED, RUNS = {}, {}  # half a second each
RUN = ("hardware=cpu", "model=tiny", "seed=7", "solver.max_iter=12")


@pytest.fixture
def job_of(compose_config, tmp_path):
    """Overrides of a command without groups -> a job in the folder of the run."""

    def make(*overrides, full=()):
        if full not in COMPOSED:
            COMPOSED[full] = compose_config(*full)
        composed = COMPOSED[full].copy()
        for each in overrides:
            if not each.startswith("hardware="):  # a group; composed on a CPU it is that one
                key, _, text = each.partition("=")
                OmegaConf.update(composed, key, yaml.safe_load(text))
        if not full:
            composed = resuming.with_own_config(composed, tmp_path, overrides, cli.groups())
        return Job(tmp_path, cli.typed(composed), overrides)

    return make


@pytest.fixture
def run(job_of, tmp_path):
    """Write the folder of a run; returns its result."""

    def write(status="interrupted", overrides=RUN, last="model_0000008.pth"):
        if overrides not in RUNS:
            job = job_of(full=overrides)
            RUNS[overrides] = job.hash, to_yaml(job.config)
        told, text = RUNS[overrides]
        result = run_folder.Result(status, "train", config_hash=told)
        run_folder.write_result(tmp_path, result)
        (tmp_path / run_folder.CONFIG).write_text(text)
        if last:
            (tmp_path / run_folder.LAST_CHECKPOINT).write_text(last)
        return result

    return write


def test_the_folder_without_further_keys_means_the_own_config_of_the_run(run, job_of):
    earlier = run()
    job = job_of()
    assert job.config.model.name == "tiny"
    assert (job.config.seed, job.config.solver.max_iter) == (7, 12)
    assert job.hash == earlier.config_hash
    _check_goes_on(job, earlier)


def test_more_steps_extend_and_reach_detectron2(run, job_of):
    earlier = run("completed", last="model_final.pth")
    job = job_of("solver.max_iter=24")
    _check_goes_on(job, earlier)
    assert not _is_finished(job, earlier)
    assert job.config.d2["SOLVER"]["MAX_ITER"] == 24
    assert job.config.seed == 7


def test_as_many_steps_are_finished(run, job_of):
    earlier = run("completed", last="model_final.pth")
    assert _is_finished(job_of("solver.max_iter=12"), earlier)


def test_the_whole_command_with_more_steps_extends_too(run, job_of):
    earlier = run("completed")
    job = job_of("solver.max_iter=24", full=RUN[:3])
    _check_goes_on(job, earlier)
    assert not _is_finished(job, earlier)


def test_fewer_steps_are_refused_by_name(run, job_of):
    earlier = run()
    with pytest.raises(ConfigError, match=r"solver\.max_iter: 12 in the run, 6 now"):
        _check_goes_on(job_of("solver.max_iter=6"), earlier)


def test_a_refusal_names_each_key_both_values_and_no_removal(run, job_of):
    earlier = run()
    with pytest.raises(ConfigError) as refused:
        _check_goes_on(job_of("seed=9", "solver.base_lr=0.5"), earlier)
    lines = str(refused.value).splitlines()
    assert lines[1:3] == [
        "  solver.base_lr: 0.001 in the run, 0.5 now",
        "  seed: 7 in the run, 9 now",
    ]
    assert "another output=DIR" in lines[3]
    assert "remove" not in str(refused.value)


def test_what_does_not_change_the_weights_may_change(run, job_of):
    earlier = run()
    periods = ("solver.eval_period=3", "solver.log_period=3", "solver.checkpoint_period=3")
    others = ("solver.patience=2", "hardware.num_workers=1", "evaluation.pictures=1")
    job = job_of(*periods, *others, "hardware=cpu", "sweep.retries=1")
    assert job.hash != earlier.config_hash
    assert (job.config.solver.eval_period, job.config.hardware.num_workers) == (3, 1)
    _check_goes_on(job, earlier)


def test_later_steps_of_the_rate_may_be_added_to_an_extension_only_beyond_the_old_end(run, job_of):
    multistep = (*RUN, "solver.schedule=multistep", "solver.steps=[4]")
    earlier = run("completed", multistep)
    _check_goes_on(job_of("solver.max_iter=24", "solver.steps=[4,16]"), earlier)
    with pytest.raises(ConfigError, match=r"solver.steps: \[4\] in the run, \[8, 16\] now"):
        _check_goes_on(job_of("solver.max_iter=24", "solver.steps=[8,16]"), earlier)


def test_extending_a_cosine_says_that_the_rate_rises(run, job_of, caplog):
    earlier = run("completed")
    caplog.set_level(logging.INFO)
    assert not _is_finished(job_of("solver.max_iter=24"), earlier)
    assert "extended from 12 to 24 steps" in caplog.text
    assert "learning rate rises" in caplog.text


def test_keys_that_an_older_version_did_not_write_are_filled(run, job_of, tmp_path):
    earlier = run()
    path = tmp_path / run_folder.CONFIG
    old = OmegaConf.load(path)
    del old["evaluation"]["pictures"], old["serve"]
    path.write_text(OmegaConf.to_yaml(old))
    job = job_of()
    assert job.config.seed == 7
    _check_goes_on(job, earlier)


def test_parts_chosen_by_a_retry_are_no_other_config(run, job_of, tmp_path):
    earlier = run()
    path = tmp_path / run_folder.CONFIG
    path.write_text(path.read_text().replace("accumulate_steps: 1", "accumulate_steps: 2"))
    _check_goes_on(job_of(), run_folder.Result(**{**vars(earlier), "accumulate_steps": 2}))


def test_resume_means_output_and_keeps_the_record_of_the_run(run, tmp_path):
    run()
    expected = [f"output={tmp_path}", "hydra.output_subdir=null"]
    assert resuming.with_run_folder([f"resume={tmp_path}"], cli.groups()) == expected
    assert resuming.with_run_folder([f"output={tmp_path}"], cli.groups()) == expected
    assert resuming.with_run_folder(["resume=true"], cli.groups()) == ["resume=true"]


def test_resume_with_an_output_elsewhere_is_refused(run, tmp_path):
    run()
    with pytest.raises(ConfigError, match="output=elsewhere names another"):
        resuming.with_run_folder([f"resume={tmp_path}", "output=elsewhere"], cli.groups())


def test_resume_of_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is no run folder"):
        resuming.with_run_folder([f"resume={tmp_path / 'typo'}"], cli.groups())


@pytest.mark.parametrize("key", ["output", "resume"])
def test_a_folder_of_a_sweep_is_refused_with_its_command(run, tmp_path, key):
    run()
    with pytest.raises(ConfigError, match="--multirun" if key == "output" else "own command"):
        resuming.with_run_folder([f"{key}={tmp_path.parent}"], cli.groups())


def test_a_command_that_chooses_data_is_no_bare_resume():
    assert resuming.uses_own_config(["output=A", "solver.max_iter=2", "hardware=gpu"], cli.groups())
    for each in ("usecase=ships", "task=evaluate", "+experiment=x", "~solver.steps", "a/b=c"):
        assert not resuming.uses_own_config(["output=A", each], cli.groups())


@pytest.mark.parametrize("name", ["plain", "with space", "a=b,c", "it's", "[x]", "Größe"])
def test_the_printed_command_names_the_folder_through_shell_and_hydra(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    result = run_folder.Result("interrupted", "train")
    said = resuming.how_to_resume(folder, result, ["python", "-m", "sar_experiments"])
    *_, last = shlex.split(said.splitlines()[2])
    assert OverridesParser.create().parse_override(last).value() == str(folder)


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        (None, "No checkpoint was written yet: training will start from the beginning."),
        ("model_0000250.pth", "Training will continue after step 250"),
        ("model_final.pth", "Training has ended"),
    ],
)
def test_where_it_continues_is_said(tmp_path, last, sentence):
    if last:
        (tmp_path / run_folder.LAST_CHECKPOINT).write_text(last)
    result = run_folder.Result("interrupted", "train")
    assert resuming.how_to_resume(tmp_path, result, ["x"]).startswith(sentence)


def test_a_sweep_is_resumed_by_its_own_command(tmp_path):
    typed = ["--multirun", "usecase=ships", "solver.base_lr=1e-4,2e-4", "output=old"]
    said = resuming.how_to_resume_sweep(tmp_path, typed, ["python", "-m", "sar_experiments"])
    words = shlex.split(said.splitlines()[2])
    assert words[3:] == ["python", "-m", "sar_experiments", *typed[:3], f"output={tmp_path}"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["python", "-m", "sar_experiments", "--multirun", "seed=1,2"], 3),
        ([".venv/bin/python", "-X", "dev", "-m", "sar_experiments", "seed=1"], 5),
    ],
)
def test_the_command_begins_as_it_was_typed(monkeypatch, typed, words):
    monkeypatch.setattr("sys.orig_argv", typed)
    assert resuming.command_words() == typed[:words]


def test_the_installed_command_is_called_by_its_own_name(monkeypatch):
    monkeypatch.setattr("sys.orig_argv", ["/v/python", "/v/bin/sar-experiments", "-m", "seed=1,2"])
    assert resuming.command_words() == ["/v/bin/sar-experiments"]
