"""The image on a real Docker engine: the demo, what containers may do, how a run ends and goes on.

Needs an engine, Docker Compose and an image: IMAGE=..., else `make docker-build` builds one.
"""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
UID = os.getuid() or 1234  # a container does not run as root
SMALL = (
    "hardware.num_workers=2 usecase.simulator.image_size_px=128 usecase.simulator.train_images=24"
    " usecase.simulator.val_images=6 usecase.simulator.test_images=3"
    " usecase.simulator.scene_size_px=0 solver.warmup_iters=2"
    " solver.log_period=2 solver.ims_per_batch=2"
)
SHORT = f"{SMALL} solver.max_iter=12 solver.eval_period=6 solver.checkpoint_period=4"
ENDLESS = f"{SMALL} solver.max_iter=100000 solver.eval_period=0 solver.checkpoint_period=10"


def engine_answers():
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not engine_answers(), reason="no Docker engine answers"),
]


@pytest.fixture(scope="module")
def image():
    """Build the image unless one is given."""
    name = os.environ.get("IMAGE")
    if name is None:
        name = "sar_experiments:tests"
        environment = {**os.environ, "IMAGE": name, "SAR_UID": str(UID)}
        subprocess.run(["make", "docker-build"], cwd=CHECKOUT, env=environment, check=True)
    return name


def a_user_of(image, folder):
    """A user's folders, and a function that calls make with their variables."""
    # What `make test-slow ARGS=...` hands down is not meant for the containers.
    handed_down = {"ARGS", "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES"}
    environment = {key: value for key, value in os.environ.items() if key not in handed_down}
    environment |= {"IMAGE": image, "SAR_UID": str(UID), "SAR_GID": str(UID)}
    environment |= {"usecase": "demo", "CUDA_DEVICES": "none", "NAME": f"test-{os.getpid()}"}
    environment |= {"RUN_NAME": "run", "MEM_LIMIT": "6g", "SHM_SIZE": "1gb"}
    folder.chmod(0o755)
    for variable in ("RUNS_DIR", "CACHE_DIR", "SAR_GPU_LOCK_DIR", "DATA_DIR"):
        mounted = folder / variable.lower()
        mounted.mkdir()
        mounted.chmod(0o777)
        environment[variable] = str(mounted)

    def call(target, *, check=True, timeout_s=300, **variables):
        process = subprocess.run(
            ["make", target],
            cwd=CHECKOUT,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert process.returncode == 0 or not check, process.stdout + process.stderr
        return process

    call.runs = folder / "runs_dir"
    call.folder = call.runs / "run"
    call.data = folder / "data_dir"
    return call


@pytest.fixture
def server(image, tmp_path):
    call = a_user_of(image, tmp_path)
    yield call
    call("docker-down")


@pytest.fixture(scope="module")
def demo(image, tmp_path_factory):
    """A user after `make docker-demo`: the whole demo in a container, some minutes."""
    call = a_user_of(image, tmp_path_factory.mktemp("demo"))
    call.said = call("docker-demo", timeout_s=3600).stdout
    (call.trained,) = call.runs.glob("*_demo/model_best.pth")
    call.trained = call.trained.parent
    (call.predicted,) = call.runs.glob("*_predict_demo/detections.geojson")
    call.predicted = call.predicted.parent
    return call


def result(folder):
    return json.loads((folder / "result.json").read_text())


def wait_for(condition, what, seconds=900):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.5)
    pytest.fail(f"{what}: not within {seconds} s\n{docker('ps', '--all')}")


def docker(*words, check=True):
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=check)
    return done.stdout.strip()


def container():
    """Return the id of our container, running or not."""
    return docker("ps", "--all", "--quiet", "--filter", f"name=-test-{os.getpid()}")


def inside(*words, check=True):
    return docker("exec", container(), *words, check=check)


def state():
    return json.loads(docker("inspect", container()))[0]["State"]


def status_is(folder, *statuses):
    return (folder / "result.json").is_file() and result(folder)["status"] in statuses


def features_of(path):
    return json.loads(path.read_text())["features"]


def test_make_demo_checks_trains_and_predicts_inside(demo):
    found = result(demo.trained)
    assert found["status"] == "completed"
    assert found["seconds"] > 0
    assert found["metrics"]["AP50"] > 0.8, found["metrics"]  # 0.896 on x86
    assert result(demo.predicted)["status"] == "completed"
    assert len(features_of(demo.predicted / "detections.geojson")) > 50
    for name in ("train.json", "scene.tif"):
        assert (demo.runs / ".simulated" / "demo" / name).is_file()
    assert {path.stat().st_uid for path in demo.runs.rglob("*")} == {UID}
    assert "setup:" not in demo.said  # the environment was not touched
    assert container() == ""


def test_a_single_command_predicts_a_mounted_scene(demo):
    shutil.copy(demo.runs / ".simulated" / "demo" / "scene.tif", demo.data)
    arguments = (
        f"task=predict weights=multirun/{demo.trained.name} source={demo.data}/scene.tif"
        " output=multirun/mounted"
    )
    demo("docker-run", ARGS=arguments)
    features = features_of(demo.runs / "mounted" / "detections.geojson")
    assert {each["properties"].pop("file") for each in features} == {f"{demo.data}/scene.tif"}
    expected = features_of(demo.predicted / "detections.geojson")
    for each in expected:
        del each["properties"]["file"]
    assert features == expected
    mistake = demo("docker-run", ARGS=arguments.replace("scene.tif", "none.tif"), check=False)
    assert mistake.returncode != 0
    assert "none.tif" in mistake.stdout + mistake.stderr
    assert "Traceback" not in mistake.stdout + mistake.stderr
    assert container() == ""


def ask(*words):
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "300", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_the_service_answers_uploads_is_healthy_and_ends_on_sigterm(demo):
    scene = demo.runs / ".simulated" / "demo" / "scene.tif"
    demo("docker-serve", WEIGHTS=f"multirun/{demo.trained.name}", SERVE_PORT="18000")
    try:
        assert docker("port", container()) == "8000/tcp -> 127.0.0.1:18000"
        wait_for(lambda: state()["Health"]["Status"] == "healthy", "Docker's word", 300)
        health = ask("http://127.0.0.1:18000/health")
        assert (health["status"], health["classes"]) == ("ok", ["ship", "platform"])
        answer = ask("--form", f"file=@{scene}", "http://127.0.0.1:18000/detect")
        assert answer["type"] == "FeatureCollection"
        expected = features_of(demo.predicted / "detections.geojson")
        assert len(answer["features"]) == len(expected)
        first, wanted = answer["features"][0], expected[0]
        assert first["geometry"] == wanted["geometry"]
        inside("test", "!", "-w", "/opt/sar_experiments")
        assert "sar-serve-" not in inside("ls", "/tmp")  # the upload is gone
        start_s = time.monotonic()
        docker("stop", "--time", "90", container())
        assert time.monotonic() - start_s < 60
        assert (state()["ExitCode"], state()["OOMKilled"]) == (0, False), docker(
            "logs", container()
        )
    finally:
        docker("rm", "--force", container())
    (folder,) = demo.runs.glob("*_serve*")
    assert result(folder)["status"] == "completed"


def test_the_main_job_runs_read_only_as_the_caller(server):
    server("docker-up", ARGS=SHORT)
    wait_for(lambda: state()["Status"] == "exited", "the demo's end")
    logs = docker("logs", container())
    assert state()["ExitCode"] == 0, logs
    found = result(server.folder)
    assert found["status"] == "completed"
    assert found["git_commit"]
    assert found["metrics"]["AP50"] is not None
    assert {path.stat().st_uid for path in server.folder.rglob("*")} == {UID}
    assert docker("inspect", "--format", "{{.RestartCount}}", container()) == "0"


def test_a_container_may_do_no_more_than_it_needs(server):
    server("docker-up", ARGS=ENDLESS)
    wait_for(lambda: status_is(server.folder, "running"), "the start")
    assert inside("id", "-u") == str(UID)
    capabilities = [line for line in inside("cat", "/proc/1/status").splitlines() if "Cap" in line]
    assert {line.split()[1] for line in capabilities} == {"0" * 16}
    assert "NoNewPrivs:\t1" in inside("cat", "/proc/1/status")
    for folder in ("/", "/opt/venv", "/opt/sar_experiments", "/data", "/conf", "/etc"):
        inside("test", "!", "-w", folder)
    for folder in ("/sar/multirun", "/cache", "/locks", "/tmp"):
        inside("test", "-w", folder)
    for program in ("gcc", "cc", "g++", "ld", "git", "nvcc"):
        assert inside("sh", "-c", f"command -v {program} || true") == ""
    assert inside("cat", "/proc/1/comm") == "tini"
    assert inside("df", "--output=size", "--block-size=1M", "/dev/shm").split()[-1] == "1024"
    second = server("docker-up", ARGS=ENDLESS, check=False)
    assert second.returncode == 2
    assert "is running already" in second.stderr
    health = inside("/usr/bin/python3", "-I", "/opt/sar_experiments/docker/healthcheck.py")
    assert health == "1 run(s) at work"


def test_docker_stop_leaves_a_checkpoint_and_the_same_name_goes_on(server):
    server("docker-up", ARGS=ENDLESS)
    wait_for(lambda: (server.folder / "last_checkpoint").is_file(), "the first checkpoint")
    start_s = time.monotonic()
    docker("stop", "--time", "90", container())
    assert time.monotonic() - start_s < 80
    assert state()["ExitCode"] == 130
    assert not state()["OOMKilled"]
    stopped = result(server.folder)
    assert stopped["status"] == "interrupted"
    log_lines = len((server.folder / "metrics.jsonl").read_text().splitlines())
    server("docker-up", ARGS=ENDLESS)
    metrics = server.folder / "metrics.jsonl"
    wait_for(lambda: len(metrics.read_text().splitlines()) > log_lines, "the run to go on")
    steps = [json.loads(line).get("iteration", 0) for line in metrics.read_text().splitlines()]
    assert steps == sorted(steps)
    server("docker-down")
    assert container() == ""
    assert result(server.folder)["status"] == "interrupted"


def test_a_killed_run_is_started_again_and_goes_on(server):
    server("docker-up", ARGS=ENDLESS)
    wait_for(lambda: (server.folder / "last_checkpoint").is_file(), "the first checkpoint")
    first = result(server.folder)["started"]
    inside(
        "sh",
        "-c",
        "kill -9 $(grep -l sar_experiments.tasks /proc/[0-9]*/cmdline | cut -d/ -f3)",
        check=False,
    )
    wait_for(
        lambda: status_is(server.folder, "running") and result(server.folder)["started"] != first,
        "the restart",
    )
    assert docker("inspect", "--format", "{{.RestartCount}}", container()) == "1"


def test_tensorboard_answers_and_is_healthy(server):
    server("docker-tensorboard", TENSORBOARD_PORT="16010", TENSORBOARD_BIND="127.0.0.1")
    name = container()
    try:
        check = ["/usr/bin/python3", "-I", "/opt/sar_experiments/docker/healthcheck.py"]
        words = ["docker", "exec", name, *check, "http", "6010", "/"]
        wait_for(
            lambda: subprocess.run(words, capture_output=True, check=False).returncode == 0,
            "TensorBoard's answer",
        )
        assert docker("port", name) == "6010/tcp -> 127.0.0.1:16010"
    finally:
        docker("rm", "--force", name)
