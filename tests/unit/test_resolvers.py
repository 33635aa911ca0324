"""What a run asks a cluster for follows from its hardware."""

import pytest

from sar_experiments import resolvers
from sar_experiments.config import Device


@pytest.mark.parametrize(
    ("device", "num_gpus", "cpu_processes", "expected"),
    [
        (Device.cuda, 4, 1, (4, 32)),
        (Device.auto, 1, 1, (1, 8)),  # composed on a login node, which has none itself
        (Device.cpu, 0, 2, (None, 16)),
    ],
)
def test_a_run_asks_for_its_gpus_and_cores(device, num_gpus, cpu_processes, expected):
    asked = (
        resolvers.cluster_gpus(device, num_gpus),
        resolvers.cluster_cpus(device, num_gpus, cpu_processes, 8),
    )
    assert asked == expected
