"""No GPU slot is held twice, none is left held, and all or none are taken.

The GPUs are made up (SAR_GPUS); the locks and processes are real.
"""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from sar_experiments import gpus
from sar_experiments.errors import HardwareError

JOB = """
import sys, time
from pathlib import Path
from sar_experiments import gpus
count, slots, seconds, log = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
with gpus.lease(count, jobs_per_gpu=slots, poll_s=0.02) as lease:
    start = time.monotonic()
    time.sleep(seconds)
    end = time.monotonic()
    with open(log, "a") as file:
        for gpu in lease.gpus:
            file.write(f"{gpu} {start} {end}\\n")
"""


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch, tmp_path):
    monkeypatch.setenv("SAR_GPUS", "fake0,fake1")
    monkeypatch.setenv("SAR_GPU_LOCK_DIR", str(tmp_path / "locks"))


def start_job(log, *, count=1, slots=1, seconds=0.2):
    arguments = [str(count), str(slots), str(seconds), str(log)]
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(JOB), *arguments])


def spans(log):
    rows = [line.split() for line in log.read_text().splitlines()]
    return [(gpu, float(start), float(end)) for gpu, start, end in rows]


def most_at_once(log, gpu):
    times = [(start, end) for name, start, end in spans(log) if name == gpu]
    return max(sum(s <= moment < e for s, e in times) for moment, _ in times)


@pytest.mark.parametrize("slots", [1, 2])
def test_uneven_jobs_never_share_a_slot_and_leave_no_gpu_idle(tmp_path, slots):
    log = tmp_path / "log"
    jobs = [start_job(log, slots=slots, seconds=s) for s in (0.9, 0.2, 0.2, 0.2, 0.2, 0.2)]
    assert [job.wait(120) for job in jobs] == [0] * 6
    assert {gpu for gpu, *_ in spans(log)} == {"fake0", "fake1"}
    assert max(most_at_once(log, gpu) for gpu in ("fake0", "fake1")) <= slots


def test_two_jobs_that_want_both_gpus_take_turns(tmp_path):
    log = tmp_path / "log"
    jobs = [start_job(log, count=2) for _ in range(2)]
    assert [job.wait(120) for job in jobs] == [0, 0]
    assert [most_at_once(log, gpu) for gpu in ("fake0", "fake1")] == [1, 1]


def test_a_killed_holder_leaves_its_gpus_free(tmp_path):
    holder = start_job(tmp_path / "log", count=2, seconds=60)
    deadline = time.monotonic() + 20
    while not list((tmp_path / "locks").glob("gpu-fake1*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.1)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    waits = []
    with gpus.lease(2, on_wait=lambda: waits.append(1)) as lease:
        assert lease.gpus == ("fake0", "fake1")
    assert not waits


def test_the_emptiest_gpu_is_taken_first():
    with gpus.lease(1, jobs_per_gpu=2) as first, gpus.lease(1, jobs_per_gpu=2) as second:
        assert {*first.gpus, *second.gpus} == {"fake0", "fake1"}


def test_a_lease_of_nothing_does_not_wait():
    with gpus.lease(2), gpus.lease(0) as lease:
        assert lease.gpus == ()


def test_waiting_is_announced_once(tmp_path):
    waits = []
    holder = start_job(tmp_path / "log", count=2, seconds=0.8)
    deadline = time.monotonic() + 20
    while not list((tmp_path / "locks").glob("gpu-fake1*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.05)
    with gpus.lease(1, poll_s=0.05, on_wait=lambda: waits.append(1)):
        assert waits == [1]
    holder.wait()


def test_more_gpus_than_visible_are_refused_before_waiting():
    with (
        pytest.raises(HardwareError, match=r"hardware\.num_gpus=3, but 2 visible \(fake0, fake1\)"),
        gpus.lease(3),
    ):
        pass


@pytest.mark.parametrize(("value", "expected"), [("", []), ("-1", []), ("GPU-a", ["GPU-a"])])
def test_visible_gpus_follow_the_environment(monkeypatch, value, expected):
    monkeypatch.delenv("SAR_GPUS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert [gpu.uuid for gpu in gpus.visible_gpus()] == expected


@pytest.mark.parametrize(
    ("assigned", "expected"), [("GPU-b", ["GPU-b"]), ("NoDevFiles", []), ("", [])]
)
def test_in_a_job_of_slurm_its_own_assignment_counts(monkeypatch, assigned, expected):
    monkeypatch.setenv("SAR_GPUS", "GPU-a,GPU-b")  # of the machine that the job was sent from
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", assigned)
    assert [gpu.uuid for gpu in gpus.visible_gpus()] == expected


def test_slots_are_gpus_times_jobs_over_gpus_per_job():
    assert gpus.gpu_slots(1) == 2
    assert gpus.gpu_slots(1, 3) == 6
    assert gpus.gpu_slots(2) == 1
    assert gpus.gpu_slots(8) == 1


def test_a_lock_folder_that_cannot_be_made_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAR_GPU_LOCK_DIR", str(tmp_path / "file" / "locks"))
    refusal = r"SAR_GPU_LOCK_DIR=.*file/locks cannot be made"
    with pytest.raises(HardwareError, match=refusal), gpus.lease(1):
        pass


def test_a_container_that_sees_one_gpu_leases_it_by_its_uuid(tmp_path, monkeypatch):
    """Inside a container the only GPU is number 0, whatever the host calls it."""
    monkeypatch.delenv("SAR_GPUS")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, rows in (("host", "0, GPU-a, H100\n1, GPU-b, H100"), ("container", "0, GPU-b, H100")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "nvidia-smi").write_text(f"#!/bin/sh\necho '{rows}'\n")
        (tmp_path / name / "nvidia-smi").chmod(0o755)
    log = tmp_path / "log"
    jobs = []
    for name, count in (("host", 2), ("container", 1), ("container", 1)):
        with monkeypatch.context() as patch:
            patch.setenv("PATH", str(tmp_path / name), prepend=os.pathsep)
            jobs.append(start_job(log, count=count))
    assert [job.wait(60) for job in jobs] == [0, 0, 0]
    assert sorted(gpu for gpu, *_ in spans(log)) == ["GPU-a", "GPU-b", "GPU-b", "GPU-b"]
    assert most_at_once(log, "GPU-b") == 1


def test_a_lock_that_another_user_made_is_opened_and_never_created_anew(monkeypatch):
    """The kernel's fs.protected_regular refuses O_CREAT there; see man 5 proc_sys_fs."""
    with gpus.lease(1):
        pass
    really_open = os.open

    def protected(path, flags, *mode, **more):
        if flags & os.O_CREAT and os.path.exists(path):  # noqa: PTH110 - str or Path
            raise PermissionError(13, "Permission denied")
        return really_open(path, flags, *mode, **more)

    monkeypatch.setattr(os, "open", protected)
    with gpus.lease(1) as lease:
        assert lease.gpus == ("fake0",)


def test_everyone_may_use_the_locks(tmp_path):
    before = os.umask(0o077)
    try:
        with gpus.lease(1):
            pass
    finally:
        os.umask(before)
    modes = {entry.name: entry.stat().st_mode & 0o7777 for entry in (tmp_path / "locks").iterdir()}
    assert modes == {"mutex": 0o666, "gpu-fake0.0.lock": 0o666}
    assert (tmp_path / "locks").stat().st_mode & 0o7777 == 0o1777
