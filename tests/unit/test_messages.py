"""What is wrong with a cluster is said in one sentence, with what to do."""

import subprocess
import sys

import pytest

from sar_experiments.messages import cluster_mistake

# The plugin's absence, as an installation without the extra has it.
WITHOUT_PLUGIN = """
import sys, warnings
warnings.simplefilter("ignore")
for name in ("hydra_submitit_launcher", "hydra_ray_launcher"):
    sys.modules["hydra_plugins." + name] = sys.modules[f"hydra_plugins.{name}.config"] = None
    sys.modules[f"hydra_plugins.{name}._config"] = None
sys.argv = ["sar_experiments", "--multirun", "hydra/launcher=" + sys.argv[1], "hardware=cpu"]
from sar_experiments import cli
cli.main()
"""


@pytest.mark.parametrize(("launcher", "extra"), [("slurm", "slurm"), ("ray", "ray")])
def test_a_missing_launcher_names_its_extra(tmp_path, launcher, extra):
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT_PLUGIN, launcher],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert process.returncode == 2
    assert f"pip install 'sar-experiments[{extra}]'" in process.stderr
    assert "Traceback" not in process.stderr


def test_a_machine_without_slurm_is_told_what_runs_here():
    error = RuntimeError('Could not detect "srun", are you indeed on a slurm cluster?')
    assert "hydra/launcher=slurm_local" in cluster_mistake(error)


def test_any_other_error_is_none_of_a_cluster():
    assert cluster_mistake(ValueError("sbatch")) is None
