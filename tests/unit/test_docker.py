"""Dockerfile, compose.yaml, compose.sh and Makefile agree; services are locked down; names differ.

compose.sh runs as it is, with a ``docker`` on its path that notes what it was asked for.
"""

import json
import os
import re
import shutil
import subprocess
from itertools import product
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[2]
DOCKER = CHECKOUT / "docker"
COMPOSE = (DOCKER / "compose.yaml").read_text()
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
SCRIPT = (DOCKER / "compose.sh").read_text()
SERVICES = yaml.safe_load(COMPOSE)["services"]
VARIABLE = re.compile(r"\$\{([A-Z_]+):-([^}]*)\}")

NOTING_DOCKER = """#!/usr/bin/env python3
import json, os, sys
from pathlib import Path
words = sys.argv[1:]
note = {"words": words, "variables": dict(os.environ)}
if "--file" in words and "compose" in words:
    note["file"] = Path(words[words.index("--file") + 1]).read_text()
with open(os.environ["NOTES"], "a") as notes:
    notes.write(json.dumps(note) + "\\n")
if words[0] == "ps":
    print(os.environ.get("RUNNING", ""))
"""


@pytest.fixture
def compose_sh(tmp_path):
    """Call compose.sh with variables; returns the process and what docker was asked for."""
    (tmp_path / "docker").write_text(NOTING_DOCKER)
    (tmp_path / "docker").chmod(0o755)
    for folder in ("runs", "cache", "locks", "data"):
        (tmp_path / folder).mkdir()

    def call(command, **variables):
        notes = tmp_path / "notes"
        notes.unlink(missing_ok=True)
        environment = {
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "NOTES": str(notes),
            "SAR_UID": "1000",
            "RUNS_DIR": str(tmp_path / "runs"),
            "CACHE_DIR": str(tmp_path / "cache"),
            "SAR_GPU_LOCK_DIR": str(tmp_path / "locks"),
            **variables,
        }
        process = subprocess.run(
            [str(DOCKER / "compose.sh"), command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        asked = notes.read_text().splitlines() if notes.exists() else []
        return process, [json.loads(line) for line in asked]

    return call


def composed(asked):
    """Return the call of Compose itself."""
    (call,) = (note for note in asked if "--project-name" in note["words"])
    return call


def project(asked):
    words = composed(asked)["words"]
    return words[words.index("--project-name") + 1]


def gpu_requests(asked, service="ships"):
    services = yaml.safe_load(composed(asked)["file"])["services"]
    return services[service]["deploy"]["resources"]["reservations"]["devices"]


# --- compose.yaml ------------------------------------------------------------------------------


def test_the_services_are_these():
    assert set(SERVICES) == {"infra", "ships", "usecase", "tensorboard", "monitor", "serve"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_locked_down(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == "${SAR_UID:-1000}:${SAR_GID:-1000}"
    assert service["network_mode"] == "bridge"
    assert not {"privileged", "cap_add", "pid", "ipc", "userns_mode", "container_name"} & set(
        service
    )
    assert "docker.sock" not in str(service)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_limits_and_a_restart_policy(name):
    service = SERVICES[name]
    assert {"mem_limit", "pids_limit", "restart", "logging"} <= set(service)


@pytest.mark.parametrize("name", SERVICES)
def test_data_and_configs_are_read_only_and_only_workers_write_runs(name):
    volumes = {each["target"]: each for each in SERVICES[name]["volumes"]}
    for target, volume in volumes.items():
        writable = target in {"/cache", "/locks"} or (
            target == "/sar/multirun" and name not in {"tensorboard", "monitor"}
        )
        assert volume.get("read_only", False) is not writable, target


def test_docker_waits_longer_than_a_run_needs_to_save():
    grace_s = yaml.safe_load((CHECKOUT / "conf/hardware/auto.yaml").read_text())["grace_s"]
    for name in ("infra", "ships", "usecase", "serve"):
        assert SERVICES[name]["stop_signal"] == "SIGTERM"
        default = VARIABLE.fullmatch(SERVICES[name]["stop_grace_period"])[2]
        assert int(default.removesuffix("s")) >= 2 * grace_s


def test_a_restarted_training_writes_into_the_same_folder():
    for name in ("infra", "ships", "usecase"):
        assert "output=/sar/multirun/${RUN_NAME" in SERVICES[name]["command"]


def test_the_service_without_login_is_bound_to_loopback_and_tensorboard_can_be():
    assert SERVICES["serve"]["ports"] == ["${SERVE_BIND:-127.0.0.1}:${SERVE_PORT:-8000}:8000"]
    bind = "${TENSORBOARD_BIND:-0.0.0.0}:${TENSORBOARD_PORT:-6010}:6010"
    assert SERVICES["tensorboard"]["ports"] == [bind]


def test_every_variable_has_a_default_and_is_documented():
    head, _, body = COMPOSE.partition("\nx-hardened")
    used = {name for name, _ in VARIABLE.findall(body)}
    assert body.count("${") == len(VARIABLE.findall(body))
    documented = set(re.findall(r"\b[A-Z][A-Z_]{3,}\b", head))
    assert used <= documented
    readme = (DOCKER / "README.md").read_text()
    assert {name for name in used if name not in readme} == set()


@pytest.mark.parametrize("name", ["infra", "ships"])
def test_a_service_trains_the_use_case_of_its_name(name):
    assert SERVICES[name]["command"].split()[0] == f"usecase={name}"
    assert (CHECKOUT / "conf" / "usecase" / f"{name}.yaml").is_file()


def test_the_monitor_is_a_task_of_ours():
    assert SERVICES["monitor"]["command"][0] == "task=monitor"
    assert (CHECKOUT / "conf" / "task" / "monitor.yaml").is_file()


@pytest.mark.parametrize("variables", [{}, {"CUDA_DEVICES": "1", "MEM_LIMIT": "8g", "CPUS": "2"}])
def test_docker_compose_accepts_the_file(variables):
    found = shutil.which("docker-compose")
    if found is None:
        pytest.skip("docker-compose is not installed (Debian: apt install docker-compose)")
    environment = {**os.environ, "COMPOSE_PROFILES": "all", **variables}
    command = [found, "--file", str(DOCKER / "compose.yaml"), "config"]
    process = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert process.returncode == 0, process.stderr
    assert set(yaml.safe_load(process.stdout)["services"]) == set(SERVICES)


# --- Dockerfile --------------------------------------------------------------------------------


def test_the_base_is_pinned_by_version():
    assert re.search(r"^ARG BASE=debian:\d+\.\d+-slim$", DOCKERFILE, re.MULTILINE)


def test_container_and_checkout_are_set_up_by_the_same_script():
    makefile = (CHECKOUT / "Makefile").read_text()
    assert "docker/environment/setup.sh" in makefile
    for part in ("setup.sh dependencies", "setup.sh project"):
        assert part in DOCKERFILE
    assert "pip install" not in DOCKERFILE


def test_the_final_stage_installs_no_compiler_and_ends_as_a_user():
    final = DOCKERFILE.partition("AS final")[2]
    assert "apt-get" not in final
    assert "build-essential" not in DOCKERFILE.partition("AS environment-compiled")[0]
    assert re.findall(r"^USER .*", final, re.MULTILINE) == ["USER ${UID}:${GID}"]


def test_code_is_copied_after_everything_that_is_slow():
    order = [
        DOCKERFILE.index(each)
        for each in ("setup.sh dependencies", "COPY --from=environment", "COPY sar_experiments")
    ]
    assert order == sorted(order)


def test_what_the_image_copies_exists_and_is_let_through():
    ignored = (CHECKOUT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert {"sar_experiments", "conf", "pyproject.toml"} <= sources
    for source in sources:
        assert (CHECKOUT / source).exists(), source
        assert f"!{source}" in ignored, source


def test_make_inside_finds_the_environment_finished(tmp_path):
    linked = re.search(r"ln -s (.+) /sar/", DOCKERFILE)[1]
    for source in re.findall(r"\$PWD/(\w[\w.]*)", linked):
        (tmp_path / source).symlink_to(CHECKOUT / source)
    assert 'touch "$VENV/setup.stamp"' in DOCKERFILE
    environment = tmp_path / "environment"
    environment.mkdir()
    (environment / "setup.stamp").touch()
    process = subprocess.run(
        ["make", "--dry-run", "demo"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "VENV": str(environment)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "setup.sh" not in process.stdout
    assert process.stdout.count(f"{environment}/bin/python -m sar_experiments") == 5


def test_every_build_argument_is_documented():
    head = DOCKERFILE.partition("\nARG ")[0]
    for argument in re.findall(r"^ARG ([A-Z0-9_]+)", DOCKERFILE, re.MULTILINE):
        assert argument in head, argument


def test_signals_reach_the_door():
    assert 'ENTRYPOINT ["/usr/bin/tini", "--", "sar-experiments"]' in DOCKERFILE
    assert "STOPSIGNAL SIGTERM" in DOCKERFILE


# --- compose.sh and the Makefile ---------------------------------------------------------------


def test_make_has_a_target_for_every_command():
    makefile = (CHECKOUT / "Makefile").read_text()
    called = set(re.findall(r"docker/compose\.sh (\w+)", makefile))
    usage = re.search(r"compose\.sh ([a-z|]+)", SCRIPT)[1]
    assert called | {"config"} == set(usage.split("|"))


def test_one_gpu_is_all_that_the_container_gets(compose_sh):
    process, asked = compose_sh("up", usecase="ships", CUDA_DEVICES="1")
    assert process.returncode == 0, process.stderr
    (request,) = gpu_requests(asked)
    assert request == {"driver": "nvidia", "device_ids": ["1"], "capabilities": ["gpu"]}
    assert composed(asked)["words"][-4:] == ["up", "--detach", "--no-build", "ships"]


def test_each_of_several_gpus_is_an_item_of_its_own(compose_sh):
    _, asked = compose_sh("up", usecase="ships", CUDA_DEVICES="0,2")
    assert gpu_requests(asked)[0]["device_ids"] == ["0", "2"]


def test_no_gpu_is_reserved_where_none_is_wanted_or_there(compose_sh):
    for variables in ({"CUDA_DEVICES": "none"}, {}):  # nvidia-smi is not on the path
        _, asked = compose_sh("up", usecase="ships", **variables)
        assert gpu_requests(asked) == []


def test_unset_means_all_where_nvidia_smi_answers(compose_sh, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    _, asked = compose_sh("up", usecase="ships")
    assert gpu_requests(asked)[0]["device_ids"] == ["all"]


def test_names_differ_by_user_use_case_and_gpu(compose_sh, tmp_path):
    (tmp_path / "id").write_text('#!/bin/sh\n[ "$1" = -un ] && echo "$WHO" || echo 1234\n')
    (tmp_path / "id").chmod(0o755)
    gpus = ["1", "10", "0,1"]
    names = set()
    for who, usecase, gpu in product(("ana", "An.a"), ("ships", "infra"), gpus):
        _, asked = compose_sh("down", usecase=usecase, CUDA_DEVICES=gpu, WHO=who)
        assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", project(asked))
        names.add(project(asked))
    assert len(names) == 2 * 2 * len(gpus)
    assert "sar-ana-ships-gpu1" in names


def test_a_name_tells_two_containers_apart(compose_sh):
    _, asked = compose_sh("up", usecase="ships", CUDA_DEVICES="1", NAME="lr2")
    assert project(asked).endswith("-ships-gpu1-lr2")


def test_a_running_container_is_not_replaced(compose_sh):
    process, asked = compose_sh("up", usecase="ships", CUDA_DEVICES="1", RUNNING="c0ffee")
    assert process.returncode == 2
    assert "is running already" in process.stderr
    assert not any("up" in note["words"] for note in asked)


def test_down_without_a_use_case_asks_for_our_own_containers_alone(compose_sh):
    process, asked = compose_sh("down", RUNNING="c0ffee\ndecade")
    assert process.returncode == 0, process.stderr
    calls = [note["words"] for note in asked if note["words"][0] != "compose"]
    me = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    assert calls[0] == ["ps", "--quiet", "--filter", f"label=sar_experiments.user={me}", "--all"]
    assert calls[1:] == [["stop", "--time", "90", "c0ffee", "decade"], ["rm", "c0ffee", "decade"]]


def test_a_use_case_in_the_own_folder_is_found(compose_sh, tmp_path):
    (tmp_path / "usecase").mkdir()
    (tmp_path / "usecase" / "aircraft.yaml").touch()
    process, asked = compose_sh("up", usecase="aircraft", CONF_DIR=str(tmp_path))
    assert process.returncode == 0, process.stderr
    assert composed(asked)["variables"]["USECASE"] == "aircraft"


def test_a_single_command_keeps_its_words_and_its_container_goes(compose_sh, tmp_path):
    arguments = f"task=predict source={tmp_path}/x.tif 'usecase.classes=[a, b]'"
    process, asked = compose_sh("run", ARGS=arguments, CUDA_DEVICES="1")
    assert process.returncode == 0, process.stderr
    words = composed(asked)["words"]
    assert words[words.index("run") :][:3] == ["run", "--rm", "-T"]
    words = words[words.index("usecase") :]
    assert words == [
        "usecase",
        "task=predict",
        f"source={tmp_path}/x.tif",
        "usecase.classes=[a, b]",
    ]
    assert gpu_requests(asked, "usecase")[0]["device_ids"] == ["1"]


def test_the_demo_takes_no_gpu(compose_sh, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    _, asked = compose_sh("demo")
    assert gpu_requests(asked, "usecase") == []
    assert composed(asked)["words"][-4:] == ["--entrypoint", "tini -- make", "usecase", "demo"]
    _, asked = compose_sh("demo", ARGS="seed=2 solver.max_iter=9")
    assert composed(asked)["words"][-2:] == ["demo", "ARGS=seed=2 solver.max_iter=9"]


def test_a_name_tells_two_services_apart(compose_sh, tmp_path):
    (tmp_path / "runs" / "a").mkdir()
    names = set()
    for variables in ({}, {"NAME": "second"}):
        process, asked = compose_sh("serve", WEIGHTS="multirun/a", **variables)
        assert process.returncode == 0, process.stderr
        names.add(project(asked))
        assert f"{project(asked)} listens on 127.0.0.1:8000" in process.stdout
    assert len(names) == 2


@pytest.mark.parametrize(
    ("command", "variables", "sentence"),
    [
        ("run", {}, "ARGS='task=predict weights=multirun/RUN"),
        ("serve", {}, "WEIGHTS=multirun/ships is no run"),
        ("serve", {"WEIGHTS": "/srv/model.pth"}, "WEIGHTS=/srv/model.pth is no run"),
    ],
)
def test_what_could_only_fail_inside_is_refused_outside(compose_sh, command, variables, sentence):
    process, asked = compose_sh(command, **variables)
    assert process.returncode == 2
    assert sentence in process.stderr
    assert not any("--project-name" in note["words"] for note in asked)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({}, "usecase=infra, usecase=ships or one of your own must be given"),
        ({"usecase": "a b"}, "usecase=a b is no name of a use case"),
        ({"usecase": "shps"}, "usecase=shps is neither one of ours nor in CONF_DIR"),
        ({"usecase": "ships", "CUDA_DEVICES": "gpu1"}, "CUDA_DEVICES=gpu1 names no GPUs"),
        ({"usecase": "ships", "CUDA_DEVICES": "1,"}, "CUDA_DEVICES=1, names no GPUs"),
        ({"usecase": "ships", "SAR_UID": "0"}, "a container does not run as root"),
        ({"usecase": "ships", "DATA_DIR": "data"}, "DATA_DIR=data is no folder"),
        ({"usecase": "ships", "DATA_DIR": "/nowhere"}, "DATA_DIR=/nowhere is no folder"),
    ],
)
def test_mistakes_are_refused_with_a_sentence(compose_sh, variables, sentence):
    process, asked = compose_sh("up", **variables)
    assert process.returncode == 2
    assert sentence in process.stderr
    assert not any("up" in note["words"] for note in asked)


def test_the_caller_is_who_runs_in_the_container(compose_sh):
    _, asked = compose_sh("up", usecase="ships", SAR_UID="1234", SAR_GID="77")
    variables = composed(asked)["variables"]
    assert (variables["SAR_UID"], variables["SAR_GID"]) == ("1234", "77")
    assert variables["RUN_NAME"].endswith("_train_ships")
