"""A real Slurm of one node, its daemons started here: sweeps survive preemption and requeueing.

Needs root and `apt-get install --no-install-recommends slurmctld slurmd slurm-client munge`.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest
import torch

pytestmark = [pytest.mark.detectron2, pytest.mark.slow]

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "squeue")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]

# No control groups and no accounting: what runs in a container, too. A requeued job waits for
# the credential of its first life to expire.
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


# Slurm counts any device file as a GPU and numbers it for CUDA.
GPUS = "Name=gpu File=/dev/zero\nName=gpu File=/dev/full\n"


def wait_for(condition, timeout_s=300):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Start munged, slurmctld and slurmd in the foreground; yields the environment of clients."""
    if MISSING or os.geteuid() != 0:
        pytest.skip(f"needs root and Slurm; missing: {', '.join(MISSING) or 'root'}")
    folder = tmp_path_factory.mktemp("slurm")
    for parent in (folder, folder.parent):
        parent.chmod(0o755)  # munge refuses a socket that others cannot reach
    for name in ("state", "spool"):
        (folder / name).mkdir()
    secrets = folder / "munge"
    secrets.mkdir(mode=0o700)
    (secrets / "key").write_bytes(os.urandom(1024))
    (secrets / "key").chmod(0o400)
    controller, node = free_ports(2)
    config = folder / "slurm.conf"
    config.write_text(
        CONFIG.format(
            host=socket.gethostname().partition(".")[0],
            folder=folder,
            controller=controller,
            node=node,
            cores=os.cpu_count(),
        )
    )
    (folder / "gres.conf").write_text(GPUS)
    environment = {**os.environ, "SLURM_CONF": str(config), "CUDA_VISIBLE_DEVICES": ""}
    daemons = [
        subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        for command in (
            ["munged", "--force", "--foreground", f"--socket={folder}/munge.sock",
             f"--key-file={secrets}/key", f"--pid-file={secrets}/pid",
             f"--seed-file={secrets}/seed", f"--log-file={secrets}/log"],
            ["slurmctld", "-D", "-c", "-f", str(config)],
            ["slurmd", "-D", "-f", str(config)],
        )
    ]  # fmt: skip

    def is_idle():
        states = subprocess.run(
            ["sinfo", "-h", "-o", "%T"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return states.stdout.strip() == "idle"

    try:
        wait_for(is_idle, 60)
        yield environment
    finally:
        subprocess.run(["scancel", "--user=root"], env=environment, check=False)
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(60)


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def weights_of(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


def run_of(sweep, number):
    """Return the folder of a job, once it is there."""
    return next(iter(sweep.glob(f"{number}_demo_*")), sweep / "none yet")


def job_of(folder, number):
    """Return Slurm's id of the job that runs a run: submitit's folder is named by it."""
    for log in folder.glob(".submitit/*/*_log.out"):
        if f"-> {run_of(folder, number)}" in log.read_text():
            return log.parent.name
    return None


@pytest.fixture(scope="module")
def sweep(slurm, command, tmp_path_factory):
    """Three equal runs: one preempted by a signal, one requeued by its administrator."""
    folder = tmp_path_factory.mktemp("cluster") / "sweep"
    arguments = (
        "--multirun", "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", f"output={folder}",
        "solver.log_period=2,3,5", "solver.max_iter=30",  # the period changes no weight
    )  # fmt: skip
    log = folder.parent / "console.txt"
    with log.open("w") as console:
        process = subprocess.Popen(
            command(*arguments), stdout=console, stderr=console, env=slurm, cwd=folder.parent
        )
    try:
        for number, interrupt in enumerate((["scancel", "--signal=USR2"], ["scontrol", "requeue"])):
            wait_for(lambda number=number: (run_of(folder, number) / "last_checkpoint").exists())
            subprocess.run([*interrupt, job_of(folder, number)], env=slurm, check=True)
        code = process.wait(900)
    finally:
        process.kill()
    return folder, code, log.read_text()


def test_all_jobs_of_a_disturbed_sweep_complete(sweep):
    folder, code, output = sweep
    assert code == 0, output
    statuses = [result_of(run_of(folder, number))["status"] for number in range(3)]
    assert statuses == ["completed"] * 3
    assert (folder / "summary.csv").read_text().count("completed") == 3


@pytest.mark.parametrize("number", [0, 1])
def test_a_job_that_was_taken_away_goes_on_exactly(sweep, number):
    folder, _, _ = sweep
    log = (run_of(folder, number) / "train.log").read_text()
    assert "interrupted after step" in log
    assert "resumed after step" in log
    disturbed, undisturbed = (weights_of(run_of(folder, each)) for each in (number, 2))
    assert all(torch.equal(disturbed[key], undisturbed[key]) for key in disturbed)


def test_a_job_leases_the_gpu_that_slurm_gave_it(slurm, command, tmp_path):
    folder = tmp_path / "sweep"
    arguments = (
        "--multirun", "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", f"output={folder}",
        "hardware=gpu", "seed=1,2",
    )  # fmt: skip
    environment = {**slurm, "SAR_GPUS": "of-the-login-node", "SAR_GPU_LOCK_DIR": str(tmp_path)}
    del environment["CUDA_VISIBLE_DEVICES"]
    process = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
        check=False,
    )
    # A cluster's jobs do not tell the command why they failed, as jobs of this host do (2).
    assert process.returncode == 1, process.stdout + process.stderr
    results = [result_of(run_of(folder, number)) for number in (0, 1)]
    assert {tuple(each["gpus"]) for each in results} <= {("0",), ("1",)}
    # They are no GPUs, which the run notices itself.
    assert all("sees no GPU (CUDA_VISIBLE_DEVICES=" in each["why"] for each in results)


def test_what_slurm_refuses_is_one_sentence(slurm, command, tmp_path):
    arguments = ("--multirun", "hydra/launcher=slurm", "hydra.launcher.partition=moon", "seed=1,2")
    process = subprocess.run(
        command(*arguments, f"output={tmp_path / 'sweep'}"),
        capture_output=True, text=True, env=slurm, timeout=300, check=False,
    )  # fmt: skip
    assert process.returncode == 2
    assert "Slurm refuses the jobs: invalid partition specified: moon." in process.stderr
    assert "Traceback" not in process.stderr


def test_a_cancelled_job_saves_and_stays_away(slurm, command, tmp_path):
    folder = tmp_path / "sweep"
    arguments = (
        "--multirun", "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", f"output={folder}",
        "solver.max_iter=100000", "solver.eval_period=0", "seed=1",
    )  # fmt: skip
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=slurm
    )
    try:
        wait_for(lambda: (run_of(folder, 0) / "last_checkpoint").exists())
        run = run_of(folder, 0)
        subprocess.run(["scancel", job_of(folder, 0)], env=slurm, check=True)
        wait_for(lambda: result_of(run)["status"] != "running")
    finally:
        process.kill()
        process.wait()
    assert result_of(run)["status"] == "interrupted"
    queue = ["squeue", "-h"]
    wait_for(lambda: not subprocess.run(queue, env=slurm, capture_output=True, check=True).stdout)
