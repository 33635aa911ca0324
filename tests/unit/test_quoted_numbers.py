"""README and docs quote no measurement that no command gives."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What reads like a measurement and is a setting, a limit, or somebody else's number.
NO_MEASUREMENT = (
    "7 GB of disk",
    "levels beyond ±100",
    "68 % of the ships",
)
MEASUREMENT = re.compile(
    r"(?<![\w.])[\d.]+ ?(?:%|‰|times as|MB|GB|minutes?|seconds?|s\b)|\b\d+ of \d+\b|±\d+"
)


@pytest.fixture(scope="module")
def tool():
    """The script as a module."""
    folder = ROOT / "benchmarks"
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location("quoted_numbers", folder / "quoted_numbers.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["quoted_numbers"] = module
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(folder))
    del sys.modules["quoted_numbers"]


def test_a_measurement_says_which_number_it_is(tool):
    unmarked = []
    for file in tool.documents():
        text = re.sub(r"```.*?```|`[^`]*`", "", tool.MARK.sub("", file.read_text()), flags=re.S)
        for each in NO_MEASUREMENT:
            text = text.replace(each, "")
        unmarked += [(file.name, match.group()) for match in MEASUREMENT.finditer(text)]
    assert unmarked == []


def test_names_in_the_text_are_those_of_a_measurement(tool):
    assert len(tool.quoted(tool.documents())) > 10


def test_a_number_that_moved_is_apart_and_replaced(tool, tmp_path):
    file = tmp_path / "page.md"
    file.write_text("length <!--sizes.length_low-->\N{MINUS SIGN}4<!--/--> %")
    (each,) = tool.quoted([file])
    assert [tool.agrees(each, value) for value in (-4.4, -5.4, -5.6, 4.0)] == [
        True,
        True,
        False,
        False,
    ]
    tool.replace_in(file, {"sizes.length_low": -7.6})
    assert file.read_text() == ("length <!--sizes.length_low-->\N{MINUS SIGN}8<!--/--> %")
    assert tool.written("sizes.length_bias", -0.3) == "0"


def test_a_name_that_nothing_measures_is_refused(tool, tmp_path):
    (tmp_path / "page.md").write_text("<!--sizes.none-->1<!--/-->")
    with pytest.raises(SystemExit, match=r"no measurement gives the number sizes\.none"):
        tool.quoted([tmp_path / "page.md"])


@pytest.mark.slow
def test_sizes_that_are_quoted_are_those_measured(tool):
    values = tool.GROUPS["sizes"].measure()
    apart = [
        each.name
        for each in tool.quoted(tool.documents())
        if each.name.startswith("sizes.") and not tool.agrees(each, values[each.name[6:]])
    ]
    assert apart == []


@pytest.mark.detectron2
@pytest.mark.slow
def test_what_is_said_of_the_demo_is_what_it_does(tool):
    values = tool.GROUPS["demo"].measure()
    apart = [
        (each.name, each.text, values[each.name[5:]])
        for each in tool.quoted(tool.documents())
        if each.name.startswith("demo.")
        and each.name != "demo.minutes"  # a busy machine's are its own
        and not tool.agrees(each, values[each.name[5:]])
    ]
    assert apart == []
    assert values["scene_recall"] >= 0.95
    assert values["scene_precision"] >= 0.93
