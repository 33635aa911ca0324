"""A folder is gone on with, skipped, or refused by what its result says and what it would lose."""

import os
import time

import pytest

from sar_experiments import cli, run_folder
from sar_experiments.config import to_plain
from sar_experiments.errors import ConfigError
from sar_experiments.job import Job, _check_goes_on, _is_finished


@pytest.fixture
def job_of(compose_config, tmp_path):
    """Task and overrides -> a job in a folder of this test."""

    def make(*overrides):
        config = cli.typed(compose_config("hardware=cpu", *overrides))
        return Job(tmp_path, config, list(overrides), None)

    return make


def ended(status, task="train", config_hash="another", **more):
    return run_folder.Result(status, task, config_hash=config_hash, **more)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"weights")
    return path


def test_a_training_that_a_mistake_ended_before_it_learnt_gives_its_folder_away(job_of):
    _check_goes_on(job_of(), ended("failed", cause="user"))


def test_a_training_that_learnt_keeps_its_folder(job_of, tmp_path):
    (tmp_path / run_folder.LAST_CHECKPOINT).write_text("model_0000099.pth")
    with pytest.raises(ConfigError, match="another config"):
        _check_goes_on(job_of(), ended("failed", cause="user"))


def test_a_prediction_of_which_a_scene_failed_keeps_its_folder(job_of, weights):
    job = job_of("task=predict", f"weights={weights}", f"source={weights}")
    with pytest.raises(ConfigError, match="another config"):
        _check_goes_on(job, ended("failed", task="predict", cause="user"))


def test_what_is_completed_is_not_done_again(job_of):
    assert _is_finished(job_of(), ended("completed"))


def test_a_service_starts_again(job_of, weights):
    assert not _is_finished(job_of("task=serve", f"weights={weights}"), ended("completed", "serve"))


@pytest.mark.parametrize(("age_s", "finished"), [(3600, True), (-3600, False)])
def test_newer_weights_are_measured_again(job_of, weights, age_s, finished):
    os.utime(weights, (time.time() - age_s,) * 2)
    job = job_of("task=evaluate", f"weights={weights}")
    assert _is_finished(job, ended("completed", "evaluate", started=run_folder.now())) is finished


@pytest.mark.parametrize(("age_s", "finished"), [(3600, True), (-3600, False)])
def test_a_newer_export_is_predicted_with_again(job_of, weights, tmp_path, age_s, finished):
    exported = tmp_path / run_folder.MODEL_ONNX
    exported.write_bytes(b"network")
    os.utime(exported, (time.time() - age_s,) * 2)
    job = job_of("task=predict", "runtime=onnx", f"weights={tmp_path}", f"source={weights}")
    assert _is_finished(job, ended("completed", "predict", started=run_folder.now())) is finished


def test_a_prediction_goes_on_with_fewer_tiles_at_once(job_of, weights):
    hashes = {
        job_of("task=predict", f"weights={weights}", f"source={weights}", *more).hash
        for more in ([], ["predict.batch_size=1"], ["predict.readers=1"])
    }
    assert len(hashes) == 1


@pytest.mark.parametrize(
    "overrides",
    [["task=export"], ["task=predict", "model=cfar"], ["task=evaluate", "model=cfar"]],
)
def test_what_computes_on_the_cpu_waits_for_no_gpu(compose_config, monkeypatch, weights, overrides):
    monkeypatch.setenv("SAR_GPUS", "a,b")
    more = [f"weights={weights}"] if "model=cfar" not in overrides else []
    source = [f"source={weights}"] if "task=predict" in overrides else []
    config = cli.typed(compose_config(*overrides, *more, *source))
    assert to_plain(config)["hardware"]["device"] == "cpu"
