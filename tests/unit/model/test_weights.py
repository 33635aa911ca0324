"""Weights come whole or not at all, fit or are refused, and lose nothing in the stem."""

import re
import resource
import signal
import socket

import pytest
import torch

from sar_experiments.errors import CheckpointError
from sar_experiments.model import weights
from sar_experiments.model.build import ModelSpec, build_model, detectron2_config

pytestmark = pytest.mark.detectron2


@pytest.fixture
def tiny(typed_config):
    """Class names -> a tiny model with seeded random weights."""

    def build(*classes, overrides=()):
        config = typed_config("model=tiny", *overrides)
        torch.manual_seed(len(classes))
        spec = ModelSpec(None, config.d2, classes)
        return build_model(detectron2_config(spec, device="cpu"))

    return build


def saved(model, path, **about):
    checkpointer = weights.Checkpointer(model, path.parent, {"config": {}, "classes": [], **about})
    return checkpointer.save_whole(path.name, step=7)


def test_three_equal_channels_and_their_adapted_stem_agree(rng):
    kernel = torch.from_numpy(rng.random((4, 3, 7, 7), dtype="float32"))
    gray = torch.from_numpy(rng.random((1, 1, 16, 16), dtype="float32"))
    source = {"backbone.stem.conv1.weight": kernel}
    weights.adapt_stem(source, {"backbone.stem.conv1.weight": torch.zeros(4, 1, 7, 7)})
    adapted = torch.nn.functional.conv2d(gray, source["backbone.stem.conv1.weight"])
    expected = torch.nn.functional.conv2d(gray.repeat(1, 3, 1, 1), kernel)
    torch.testing.assert_close(adapted, expected)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_stem_keeps_its_response_to_equal_channels(rng, channels):
    source = {"stem.conv1.weight": torch.from_numpy(rng.random((4, 3, 3, 3), dtype="float32"))}
    total = source["stem.conv1.weight"].sum(dim=1)
    weights.adapt_stem(source, {"stem.conv1.weight": torch.zeros(4, channels, 3, 3)})
    torch.testing.assert_close(source["stem.conv1.weight"].sum(dim=1), total)


def test_a_saved_model_is_loaded_exactly(tiny, tmp_path):
    model, other = tiny("ship"), tiny("ship", overrides=("seed=2",))
    with torch.no_grad():
        next(other.parameters()).zero_()
    weights.load_exactly(other, saved(model, tmp_path / "model.pth"))
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in other.state_dict().items())


def test_a_checkpoint_says_who_it_is(tiny, tmp_path):
    path = saved(tiny("ship"), tmp_path / "model.pth", classes=["ship"], config={"seed": 3})
    about = weights.read_about(path)
    assert (about.classes, about.step, about.config) == (("ship",), 7, {"seed": 3})


def test_saving_leaves_no_unfinished_file(tiny, tmp_path):
    saved(tiny("ship"), tmp_path / "model.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]


def test_other_classes_start_with_new_heads_on_old_features(tiny, tmp_path):
    source, target = tiny("ship"), tiny("ship", "platform")
    path = saved(source, tmp_path / "model.pth")
    assert "start anew" in weights.load_pretrained(target, str(path), base=None)
    stem = "backbone.bottom_up.stem.conv1.weight"
    assert torch.equal(target.state_dict()[stem], source.state_dict()[stem])


def test_another_architecture_is_refused(tiny, tmp_path):
    path = saved(tiny("ship"), tmp_path / "model.pth")
    wider = tiny("ship", overrides=("d2.MODEL.FPN.OUT_CHANNELS=64",))
    with pytest.raises(CheckpointError, match=r"does not fit the model: .*fpn"):
        weights.load_pretrained(wider, str(path), base=None)


def test_an_evaluation_takes_no_other_number_of_classes(tiny, tmp_path):
    path = saved(tiny("ship"), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="does not fit"):
        weights.load_exactly(tiny("ship", "platform"), path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_a_broken_file_is_named(tiny, tmp_path, content):
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"broken\.pth cannot be read"):
        weights.read_checkpoint(tmp_path / "broken.pth")
    with pytest.raises(CheckpointError, match=r"broken\.pth cannot be read"):
        weights.load_pretrained(tiny("ship"), str(tmp_path / "broken.pth"), base=None)


def test_an_unreachable_zoo_says_what_to_do(tiny, monkeypatch):
    url = "http://127.0.0.1:9/model.pkl"  # the discard port: refused at once
    monkeypatch.setattr(weights, "zoo_url", lambda base: url)
    remedy = re.escape(url) + ".*model.weights=/path.*model.weights=none"
    with pytest.raises(CheckpointError, match=remedy):
        weights.load_pretrained(tiny("ship"), "zoo", base="any")


@pytest.fixture
def silent_server():
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/model_final.pkl"


def test_a_zoo_that_never_answers_is_given_up_with_the_remedy(silent_server, monkeypatch, tmp_path):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "zoo_url", lambda base: silent_server)
    monkeypatch.setattr(weights, "FETCH_TIMEOUT_S", 0.3)
    with pytest.raises(CheckpointError, match=r"timed out.*model\.weights=none"):
        weights.fetch_pretrained("zoo", base="COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml")
    assert socket.getdefaulttimeout() is None


def test_a_full_disk_is_named_and_leaves_no_half_a_checkpoint(tiny, tmp_path):
    model = tiny("ship")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails with EFBIG
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(OSError, match=r"File too large.*model\.pth"):
            saved(model, tmp_path / "model.pth")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


class Hostile:
    def __reduce__(self):
        return print, ("run",)


def test_a_file_that_wants_to_be_run_is_refused_without_advice_to_run_it(tmp_path, capsys):
    hostile, text = tmp_path / "hostile.pth", tmp_path / "notes.md"
    torch.save({"model": Hostile()}, hostile)
    text.write_text("# Notes\n")
    for path in (hostile, text):
        with pytest.raises(CheckpointError, match=re.escape(str(path))) as refusal:
            weights.read_checkpoint(path)
        assert "weights_only" not in str(refusal.value)
    assert capsys.readouterr().out == ""
