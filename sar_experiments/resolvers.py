"""What ${name:...} in conf/ can call, besides OmegaConf's own."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from omegaconf import ListConfig, OmegaConf

from sar_experiments import gpus, studies
from sar_experiments.config import Device

if TYPE_CHECKING:
    from collections.abc import Mapping


def register() -> None:
    """Make them known; workers of a sweep do it again."""
    for name, resolver in RESOLVERS.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


def first_set(*values: object) -> object:
    """Return the first value that is neither empty nor None."""
    return next((value for value in values if value not in (None, "")), None)


def if_equal(value: object, expected: object, then: object, otherwise: object) -> object:
    """Return ``then`` where value and expected read the same, else ``otherwise``."""
    names = [str(each.name if isinstance(each, Enum) else each) for each in (value, expected)]
    chosen = then if names[0] == names[1] else otherwise
    return chosen.name if isinstance(chosen, Enum) else chosen


def below(folder: str, name: str | None) -> str | None:
    """Return the path of a name in a folder; None without a name."""
    return None if name is None else f"{folder}/{name}"


def divide(values: ListConfig | None, divisor: float) -> ListConfig | None:
    """Return each value divided by the same number; None where nothing is known yet."""
    if values is None:
        return None
    return OmegaConf.create([float(value) / float(divisor) for value in values])


def scaled_rate(base_lr: float, ims_per_batch: int, reference: int | None) -> float:
    """Return the learning rate scaled linearly with the batch; unchanged without a reference."""
    return base_lr * ims_per_batch / reference if reference else base_lr


def gpu_count() -> int:
    """Return the number of GPUs that this process may use."""
    return len(gpus.visible_gpus())


def cluster_gpus(device: Device, num_gpus: int) -> int | None:
    """Return the GPUs that a run asks a cluster for; None, which asks for nothing, on the CPU."""
    return None if device is Device.cpu else max(1, num_gpus)


def cluster_cpus(device: Device, num_gpus: int, cpu_processes: int, per_process: int) -> int:
    """Return the cores that a run asks a cluster for: so many for each of its processes."""
    count = cluster_gpus(device, num_gpus)
    return per_process * (cpu_processes if count is None else count)


def job_slots(device: Device, num_gpus: int, jobs_per_gpu: int, jobs: int) -> int:
    """Return how many runs of a sweep go on at once."""
    if device is Device.cpu or not gpus.visible_gpus():
        return jobs
    return gpus.gpu_slots(max(1, num_gpus), jobs_per_gpu)


RESOLVERS: Mapping[str, Any] = {
    "first_set": first_set,
    "if_equal": if_equal,
    "below": below,
    "optuna_storage": studies.storage,
    "trials_left": studies.trials_left,
    "divide": divide,
    "scaled_rate": scaled_rate,
    "gpu_count": gpu_count,
    "cluster_gpus": cluster_gpus,
    "cluster_cpus": cluster_cpus,
    "job_slots": job_slots,
}
