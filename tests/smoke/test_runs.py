"""A run from the command line to its folder.

It leaves what the README promises, is resumed bit for bit, is skipped when it is complete,
evaluates to the same numbers again, and its mistakes end with one paragraph.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = pytest.mark.detectron2


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def weights_of(path):
    return torch.load(path, weights_only=True)["model"]


def test_a_run_folder_holds_what_is_promised(trained):
    folder, result, _ = trained
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        ".hydra", "config.yaml", "detectron2.yaml", "train.log", "metrics.jsonl",
        "model_best.pth", "model_final.pth", "last_checkpoint", "detections.json", "result.json",
        "thresholds.json",
    }  # fmt: skip
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not [name for name in names if name.endswith(".part") or name.startswith("model_0")]
    assert result["status"] == "completed"
    assert set(result["metrics"]) >= {
        "AP",
        "AP50",
        "AP75",
        "precision",
        "recall",
        "f1",
        "test/AP50",
    }


def test_the_console_says_what_was_decided_and_measured(trained):
    folder, _, output = trained
    for phrase in (
        "24 images",
        "GFLOPs",
        "random weights",
        "12 steps of 2 images",
        "AP50",
        str(folder),
    ):
        assert phrase in output
    assert "Traceback" not in output
    assert "Warning" not in output


def test_metrics_are_written_once_per_period(trained):
    folder, _, _ = trained
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line["iteration"] for line in lines]
    assert steps == sorted(set(steps))
    assert len(steps) >= 6
    assert {"total_loss", "lr", "grad_norm", "data_time"} <= set(lines[-1]) | set(lines[0])


@pytest.fixture(scope="module")
def events(trained):
    """What TensorBoard's own reader finds in the run folder."""
    everything = {"tensors": 0, "images": 0, "scalars": 0}
    return EventAccumulator(str(trained[0]), size_guidance=everything).Reload()


def text_of(events, title):
    return events.Tensors(f"{title}/text_summary")[0].tensor_proto.string_val[0].decode()


def test_tensorboard_reads_the_curves_of_training(events):
    assert {
        "total_loss", "loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc", "lr",
        "grad_norm", "grad_norm_clipped", "time", "data_time",
    } <= set(events.Tags()["scalars"])  # fmt: skip
    before = {each.step: each.value for each in events.Scalars("grad_norm")}
    after = {each.step: each.value for each in events.Scalars("grad_norm_clipped")}
    assert set(after) == set(before)
    assert all(0 < after[step] <= before[step] * 1.5 for step in after)  # grad_norm is a median


def test_tensorboard_reads_the_validation(events):
    scalars = set(events.Tags()["scalars"])
    assert {"val/loss", "val/loss_cls", "val/AP", "val/AP50", "val/AP/ship"} <= scalars
    assert [event.step for event in events.Scalars("val/AP50")] == [5, 11]
    assert {"val/all", "val/ship", "val/platform"} <= set(events.Tags()["tensors"])


def test_tensorboard_shows_the_same_validation_images_each_time(events):
    for kind in ("truth, found", "proposals"):
        titles = [tag for tag in events.Tags()["images"] if tag.endswith(kind)]
        assert len(titles) >= 2
        for title in titles:
            first, second = events.Images(title)
            assert (first.width, first.height) == (second.width, second.height)


def test_tensorboard_shows_the_augmented_inputs(events):
    titles = [tag for tag in events.Tags()["images"] if tag.startswith("train/input")]
    assert len(titles) == 2  # images of a step
    assert len(events.Images(titles[0])) == 3  # at the first step and at both evaluations


def test_tensorboard_shows_config_model_and_data_check_as_text(events):
    assert "max_iter: 12" in text_of(events, "config")
    assert "backbone.bottom_up" in text_of(events, "model")
    assert "pixel mean" in text_of(events, "data_check")


def test_tensorboard_compares_runs_by_their_final_metrics(trained):
    folder, result, _ = trained
    events = EventAccumulator(str(folder / "final")).Reload()
    (final,) = events.Scalars("final/AP50")
    assert final.value == pytest.approx(result["metrics"]["AP50"], abs=1e-6)
    assert events.SummaryMetadata("_hparams_/session_start_info")


def test_a_completed_run_is_not_done_again(trained, call):
    folder, result, _ = trained
    again = call(f"output={folder}")
    assert again.returncode == 0
    assert "completed already" in again.stdout
    assert result_of(folder)["ended"] == result["ended"]


def test_a_folder_of_another_config_is_refused(trained, call):
    folder, _, _ = trained
    other = call(f"output={folder}", "solver.base_lr=0.5")
    assert other.returncode == 2
    assert "another config" in other.stderr
    assert result_of(folder)["status"] == "completed"


def test_evaluating_again_gives_the_same_numbers(trained, call, tmp_path):
    folder, result, _ = trained
    again = call("task=evaluate", f"weights={folder}", f"output={tmp_path / 'eval'}")
    assert again.returncode == 0, again.stderr
    measured = result_of(tmp_path / "eval")["metrics"]
    assert measured == pytest.approx(result["metrics"], abs=1e-9, nan_ok=True)


def test_a_checkpoint_carries_the_thresholds_of_its_run(trained):
    folder, result, _ = trained
    recorded = json.loads((folder / "thresholds.json").read_text())
    assert list(recorded["classes"]) == ["ship", "platform"]
    for name in ("model_best.pth", "model_final.pth"):
        kept = torch.load(folder / name, weights_only=True)["sar_experiments"]["thresholds"]
        assert kept["origin"] == recorded["origin"]
        assert list(kept["classes"]) == list(recorded["classes"])
    best = torch.load(folder / "model_best.pth", weights_only=True)["sar_experiments"]
    assert best["thresholds"] == recorded
    for name, each in recorded["classes"].items():
        assert result["metrics"][f"threshold/{name}"] == each["score"]


def logged_steps(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return sorted({json.loads(line)["iteration"] for line in lines})


def test_a_report_says_what_the_run_measured_and_needs_no_pytorch(
    trained, command, without_torch, tmp_path
):
    output = tmp_path / "report"
    arguments = command("task=report", f"source={trained[0]}", f"output={output}")
    for _ in range(2):  # the same command makes it anew
        process = subprocess.run(
            arguments, env=without_torch, cwd=tmp_path, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert process.returncode == 0, process.stdout + process.stderr
        assert f"report: {output / 'report.html'}" in process.stdout
    (section,) = json.loads((output / "report.json").read_text())["sections"]
    (details,) = section["details"]
    assert details["doubt"] == ""
    values = section["settings"][0]["runs"][0]["values"]
    assert values["AP50"] == trained[1]["metrics"]["AP50"]
    assert section["data"]["images"] == 6
    assert section["data"]["pixel_m_from"] == "the simulator"
    assert (output / "report.csv").read_text().count("\n") == 2
    assert "Best: " in (output / "report.html").read_text()
    assert json.loads((output / "result.json").read_text())["status"] == "completed"


def test_a_killed_run_ends_with_the_same_weights(trained, command, call, tmp_path):
    folder, _, _ = trained
    killed = tmp_path / "killed"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        command(f"output={killed}"), stdout=subprocess.DEVNULL, env=environment
    )
    wait_for(killed / "last_checkpoint")
    os.kill(result_of(killed)["pid"], signal.SIGKILL)
    assert process.wait(240) == 1
    assert result_of(killed)["status"] == "failed"
    resumed = call(f"output={killed}")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "resumed after step" in resumed.stdout
    uninterrupted, interrupted = (weights_of(f / "model_final.pth") for f in (folder, killed))
    assert all(torch.equal(uninterrupted[key], interrupted[key]) for key in uninterrupted)
    assert result_of(killed)["metrics"] == result_of(folder)["metrics"]
    assert logged_steps(killed) == logged_steps(folder)


def test_an_interrupted_run_saves_and_goes_on(command, call, tmp_path):
    folder = tmp_path / "stopped"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    long = command(f"output={folder}", "solver.max_iter=100000", "solver.eval_period=0")
    process = subprocess.Popen(long, stdout=subprocess.PIPE, text=True, env=environment)
    wait_for(folder / "last_checkpoint")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 130
    assert result_of(folder)["status"] == "interrupted"
    assert (folder / (folder / "last_checkpoint").read_text()).is_file()
    assert "interrupted after step" in output


def test_divergence_stops_the_run_and_says_why(call, tmp_path):
    folder = tmp_path / "diverged"
    process = call(
        f"output={folder}", "solver.base_lr=1e3", "solver.max_iter=400", "solver.warmup_iters=0",
        "solver.checkpoint_period=1",
    )  # fmt: skip
    result = result_of(folder)
    assert process.returncode == 1
    assert result["status"] == "diverged"
    assert "solver.base_lr" in result["why"]
    assert result["details"]["files"]
    assert result["details"]["losses"]
    last = folder / (folder / "last_checkpoint").read_text()
    assert all(torch.isfinite(tensor.float()).all() for tensor in weights_of(last).values())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["solver.bsae_lr=1"], "did you mean solver.base_lr?"),
        (["solver.base_lr=banana"], "solver.base_lr: Value 'banana'"),
        (["+solver.foo=1"], "solver.foo is no key"),
        (["usecase=shps"], "did you mean usecase=ships?"),
        (["model.weights=/nowhere/model.pth"], "/nowhere/model.pth"),
        (["task=evaluate"], "weights=RUN_FOLDER"),
        (["d2.MODEL.RPN.NMS_TRESH=0.5"], "did you mean d2.MODEL.RPN.NMS_THRESH?"),
    ],
)
def test_a_mistake_ends_with_one_paragraph(call, tmp_path, arguments, sentence):
    process = call(*arguments, f"output={tmp_path / 'run'}")
    assert process.returncode == 2
    assert sentence in process.stderr
    assert "Traceback" not in process.stderr + process.stdout
    assert len(process.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["usecase=ships"], "usecase.train.images=DIR"),
        (["task=report"], "task=report needs source=RUN_OR_SWEEP"),
        (["task=report", "source=nowhere"], "source=nowhere does not exist"),
        (["task=report", "source=.", "report.sizes_px=[16,8]"], "report.sizes_px=[16.0, 8.0]"),
        (["task=report", "source=.", "report.pixel_m=0"], "report.pixel_m=0.0 must be above 0"),
        (["usecase=ships", "usecase.simulator.seed=3"], "inside one that is null"),
        (["solver.base_lr=1,2"], "--multirun"),
        (["solver.steps=[1"], "cannot be read"),
        (["model.base_lr=1"], "model.base_lr is no key; did you mean solver.base_lr?"),
        (["output=/proc/run"], "/proc/run cannot be written"),
        (["hardware=gpu"], "hardware.num_gpus=1, but 0 visible"),
    ],
)
def test_a_mistake_in_what_is_asked_for_leaves_nothing_behind(tmp_path, arguments, sentence):
    door = [sys.executable, "-m", "sar_experiments", *arguments]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.run(
        door, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert sentence in process.stderr
    assert "Traceback" not in process.stderr
    assert not list(tmp_path.rglob("*.yaml"))


def test_help_explains_the_groups_with_examples():
    door = [sys.executable, "-m", "sar_experiments", "--help"]
    text = subprocess.run(door, capture_output=True, text=True, check=True).stdout
    for phrase in ("usecase=ships", "--multirun", "augment: ", "hardware: ", "-sc install=bash"):
        assert phrase in text


@pytest.mark.slow
def test_a_class_list_that_does_not_fit_is_refused_before_training(call, tmp_path):
    process = call("usecase.classes=[ship,plattform]", f"output={tmp_path / 'run'}")
    assert process.returncode == 2
    assert "platform" in process.stdout + process.stderr
    assert result_of(tmp_path / "run")["status"] == "failed"


def test_a_broken_weight_file_is_refused_before_training(call, tmp_path):
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"not a checkpoint")
    process = call(f"model.weights={broken}", f"output={tmp_path / 'run'}")
    assert process.returncode == 2
    assert "broken.pth" in process.stdout + process.stderr


class Touch:
    """Once unpickled as Python does, a file exists."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    ["model.weights=", "task=evaluate weights=", "task=export weights=", "task=predict weights="],
)
def test_nothing_in_a_weights_file_is_run_from_the_command_line(call, tmp_path, way):
    hostile = tmp_path / "model.pkl"
    hostile.write_bytes(pickle.dumps({"model": Touch(tmp_path / "touched"), "__author__": "x"}))
    scene = tmp_path / "scene.png"
    scene.write_bytes(b"never looked at")
    task = ["hardware=cpu", f"source={scene}"] if "predict" in way else []
    process = call(*f"{way}{hostile}".split(), *task, f"output={tmp_path / 'run'}")
    said = process.stdout + process.stderr
    assert process.returncode == 2, said
    assert "model.pkl cannot be read as a checkpoint: it asks for io.open" in said
    assert "Traceback" not in said
    assert not (tmp_path / "touched").exists()


@pytest.mark.slow
def test_a_run_that_a_mistake_ended_early_leaves_its_folder_to_the_next(call, tmp_path):
    folder = tmp_path / "run"
    assert call("usecase.classes=[ship,plattform]", f"output={folder}").returncode == 2
    assert call("usecase.classes=[platform,ship]", f"output={folder}").returncode == 0
    assert result_of(folder)["status"] == "completed"


def test_composing_imports_neither_torch_nor_detectron2(command):
    door = command("--cfg", "job")
    door[1:1] = ["-X", "importtime"]
    process = subprocess.run(door, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "detectron2", "albumentations", "numpy"}


def test_a_torchvision_that_does_not_fit_torch_is_named(command, tmp_path):
    broken = tmp_path / "site" / "torchvision"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    process = subprocess.run(
        command(f"output={tmp_path / 'run'}"),
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert "do not load together: operator torchvision::nms does not exist" in process.stdout
    assert "make setup" in process.stdout


def wait_for(path, timeout_s=240):
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)
