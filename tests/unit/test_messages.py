"""What is wrong with a cluster, or with an override, is said in one sentence, with what to do."""

import shlex
import subprocess
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from sar_experiments.messages import cluster_mistake, unreadable_override

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


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("usecase.classes=[ship]~x", "~"),
        ("usecase.name=Küste", "ü"),
        ("output=runs/a=b", "="),
        ("source=a b;c", ";"),
        ("source=/data/a#1.tif", "#"),
        ("output=it's", "quotes must be closed"),
        ("usecase.classes=[ship", "brackets and quotes must be closed"),
        ("source=/data/a(1).tif", "in quotes"),
    ],
)
def test_a_value_that_hydra_cannot_read_is_told_with_how_to_write_it(override, named):
    sentence = unreadable_override(["seed=3", override, "also=wrong=so"])
    assert sentence.startswith(f"the override {override} cannot be read")
    assert named in sentence
    assert "viable" not in sentence
    # What is advised, taken through a shell, gives the value that was meant.
    advised = sentence.rpartition(': "')[2].removesuffix('"')
    (typed,) = shlex.split(f'"{advised}"')
    key, _, value = override.partition("=")
    parsed = OverridesParser.create().parse_override(typed)
    assert (parsed.key_or_group, parsed.value()) == (key, value)


def test_what_is_no_override_at_all_is_told_what_one_is():
    assert "accepted is KEY=VALUE" in unreadable_override(["train"])


def test_overrides_that_can_be_read_are_no_mistake():
    assert unreadable_override(["--multirun", "a=1,2", "b='ü ~ ='", "~c", "+d=[x,y]"]) is None
