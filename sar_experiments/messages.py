"""What Hydra and OmegaConf say -> what we say: one paragraph, with the nearest known name."""

from __future__ import annotations

import difflib
import re
import sys
from typing import TYPE_CHECKING

from sar_experiments.config import closest_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def explain(error: BaseException) -> str:
    """Return what went wrong as one paragraph, with the nearest known name."""
    text = str(error).strip()
    if _GRAMMAR.search(text):
        found = unreadable_override(sys.argv[1:])
        if found:
            return found
    for pattern, sentence in _EXPLANATIONS:
        match = re.search(pattern, text, re.DOTALL)
        if match:
            return sentence(*match.groups())
    if error.__cause__ is not None and text.startswith("Error merging override"):
        return explain(error.__cause__)
    return text


def cluster_mistake(error: BaseException) -> str | None:
    """Return what is wrong with a cluster that a sweep is sent to, as one paragraph, if it is."""
    for pattern, sentence in _CLUSTER_MISTAKES:
        match = re.search(pattern, str(error))
        if match:
            return sentence.format(*match.groups())
    return None


_CLUSTER_MISTAKES = (
    (
        r"Could not load 'hydra/launcher/submitit_",
        "hydra/launcher=slurm needs submitit: pip install 'sar-experiments[slurm]'",
    ),
    (
        r"Unknown plugin class : 'hydra_plugins\.hydra_ray",
        "hydra/launcher=ray needs Ray, in an environment of its own:"
        " pip install 'sar-experiments[ray]'",
    ),
    (
        r'Could not detect "srun"',
        "hydra/launcher=slurm: this machine has no srun, so that no cluster can be reached from it;"
        " hydra/launcher=slurm_local runs the jobs here",
    ),
    (
        r"sbatch: error: (.*)",
        "Slurm refuses the jobs: {0}. What they ask for are keys such as hydra.launcher.partition,"
        " .timeout_min, .gpus_per_node, .cpus_per_task, .mem_gb, .account and .qos",
    ),
)


def _unknown_key(key: str) -> str:
    if key.startswith(("augment.transforms.", "augment.policies.")):
        return f"{key} is not set in the YAML files; a plus adds it: +{key}=VALUE"
    return f"{key} is no key{_did_you_mean(closest_key(key))}"


def _unknown_option(name: str, group: str, options: str) -> str:
    known = options.split()
    name = name.removeprefix(f"{group}/")
    close = next(iter(difflib.get_close_matches(name, known, 1)), None)
    hint = _did_you_mean(f"{group}={close}" if close else None)
    return f"{group}={name} is no option{hint} (options: {', '.join(known)})"


# As the grammar of Hydra's overrides speaks, with or without the override around it.
_GRAMMAR = re.compile(
    r"^(?:Error parsing override.*\n)?"
    r"(?:no viable alternative|mismatched|extraneous|missing|token recognition error|LexerNoVia)"
)
_WHOLE = re.compile(r"(?P<key>[~+]*[\w./@:-]+)=(?P<value>.*)", re.DOTALL)


def unreadable_override(arguments: Sequence[str]) -> str | None:
    r"""Return what to write for the first argument that is no override, as one paragraph.

    Args:
        arguments: Of the command line, as the shell gave them.

    >>> unreadable_override(["seed=3", "output=a=b"]).endswith(': "output=\'a=b\'"')
    True
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for text in arguments:
        if text.startswith("-"):
            continue
        try:
            parser.parse_override(text)
        except HydraException as error:
            return _unreadable(text, str(error))
    return None


def _unreadable(text: str, why: str) -> str:
    whole = _WHOLE.fullmatch(text)
    if whole is None:
        return (
            f"the override {text} cannot be read; accepted is KEY=VALUE, such as"
            " solver.max_iter=100"
        )
    quoted = whole["value"].replace("\\", "\\\\").replace("'", "\\'")
    better = f"{whole['key']}='{quoted}'"
    shell = "".join(f"\\{letter}" if letter in '"$`\\' else letter for letter in better)
    culprit = re.search(r"(?:at: '|input ')(.+?)'(?:$| expecting)", why, re.DOTALL)
    mark = culprit[1] if culprit else ""
    if len(mark) == 1 and mark not in "[]{}()":
        said = f": {mark} has a meaning of its own there, or none; in quotes it is itself"
    else:
        said = (
            "; brackets and quotes must be closed, and a value that is a text is itself in quotes"
        )
    return f'the override {text} cannot be read{said}: "{shell}"'


def _no_optuna() -> str:
    return "a search needs Optuna: pip install 'sar-experiments[optuna]'"


_EXPLANATIONS: tuple[tuple[str, Callable[..., str]], ...] = (
    (r"Could not find 'hydra/sweeper/sampler/tpe'|hydra_plugins\.hydra_optuna_sweeper", _no_optuna),
    (r"Could not override '([^']+)'", _unknown_key),
    (r"Key '[^']+' not in '\w+'.*?full_key: (\S+)", _unknown_key),
    (
        r"Could not find '([^']+)'\s+Available options in '([^']+)':\s*(.*?)(?:\s*\n\s*Config|$)",
        _unknown_option,
    ),
    (r"^(.*?)\n\s+full_key: (\S+)", lambda sentence, key: f"{key}: {sentence}"),
    (r"^You must specify '([^']+)'", lambda group: f"{group} must be chosen: {group}=OPTION"),
)


def _did_you_mean(name: str | None) -> str:
    return f"; did you mean {name}?" if name else ""
