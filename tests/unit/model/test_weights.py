"""Weights come whole or not at all, fit or are refused, and lose nothing in the stem."""

import pickle
import re
import resource
import signal
import socket

import numpy as np
import pytest
import torch

from sar_experiments.errors import CheckpointError
from sar_experiments.model import state, weights
from sar_experiments.model.build import ModelSpec, build_model, detectron2_config
from sar_experiments.model.weights_file import read_weights_file

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
    state.adapt_stem(source, {"backbone.stem.conv1.weight": torch.zeros(4, 1, 7, 7)})
    adapted = torch.nn.functional.conv2d(gray, source["backbone.stem.conv1.weight"])
    expected = torch.nn.functional.conv2d(gray.repeat(1, 3, 1, 1), kernel)
    torch.testing.assert_close(adapted, expected)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_stem_keeps_its_response_to_equal_channels(rng, channels):
    source = {"stem.conv1.weight": torch.from_numpy(rng.random((4, 3, 3, 3), dtype="float32"))}
    total = source["stem.conv1.weight"].sum(dim=1)
    state.adapt_stem(source, {"stem.conv1.weight": torch.zeros(4, channels, 3, 3)})
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


def test_other_classes_start_with_new_heads_on_old_features_and_are_counted(tiny, tmp_path):
    source, target = tiny("ship"), tiny("ship", "platform")
    path = saved(source, tmp_path / "model.pth")
    said = weights.load_pretrained(target, str(path), base=None)
    assert f"{len(target.state_dict()) - 4} of {len(target.state_dict())} tensors" in said
    assert "box_predictor.cls_score.weight ((2, 128) in the file, (3, 128) in the model)" in said
    assert "these start anew" in said
    new = {name for name in target.state_dict() if "box_predictor" in name}
    for name, value in target.state_dict().items():
        assert name in new or torch.equal(value, source.state_dict()[name]), name


def test_the_same_classes_take_all_tensors(tiny, tmp_path):
    path = saved(tiny("ship"), tmp_path / "model.pth")
    target = tiny("aircraft", overrides=("seed=2",))
    said = weights.load_pretrained(target, str(path), base=None)
    assert said.endswith(f"{len(target.state_dict())} of {len(target.state_dict())} tensors")


def test_another_feature_pyramid_starts_anew_on_a_backbone_that_fits(tiny, tmp_path, caplog):
    source = tiny("ship")
    path = saved(source, tmp_path / "model.pth")
    wider = tiny("ship", overrides=("d2.MODEL.FPN.OUT_CHANNELS=64",))
    assert "start anew" in weights.load_pretrained(wider, str(path), base=None)
    assert "of the feature pyramid start anew: backbone.fpn_" in caplog.text
    for name, value in wider.state_dict().items():
        if name.startswith("backbone.bottom_up."):
            assert torch.equal(value, source.state_dict()[name]), name


def test_another_backbone_is_refused_with_the_first_tensors_and_both_shapes(tiny, tmp_path):
    about = {"config": {"model": {"name": "tiny"}}}
    path = saved(tiny("ship"), tmp_path / "model.pth", **about)
    wider = tiny("ship", overrides=("d2.MODEL.RESNETS.STEM_OUT_CHANNELS=64",))
    before = {name: value.clone() for name, value in wider.state_dict().items()}
    differs = r"stem\.conv1\.weight \(\(32, 1, 7, 7\) in the file, \(64, 1, 7, 7\) in the model\)"
    with pytest.raises(CheckpointError, match=rf"does not fit.*{differs}.*model=tiny"):
        weights.load_pretrained(wider, str(path), base=None)
    assert all(torch.equal(before[name], value) for name, value in wider.state_dict().items())


def normed(tiny, norm):
    return tiny("ship", overrides=(f"d2.MODEL.RESNETS.NORM={norm}",))


@pytest.mark.parametrize(("stored", "wanted"), [("BN", "FrozenBN"), ("FrozenBN", "BN")])
def test_frozen_and_learning_batch_norms_are_one_backbone(tiny, tmp_path, stored, wanted):
    source, target = normed(tiny, stored), normed(tiny, wanted)
    for name, value in source.state_dict().items():
        if name.endswith("running_mean"):
            value.fill_(0.25)
    path = saved(source, tmp_path / "model.pth")
    weights.load_pretrained(target, str(path), base=None)
    image = torch.ones(1, 1, 64, 64)
    with torch.no_grad():
        found, expected = (each.eval().backbone(image)["p2"] for each in (target, source))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("stored", "wanted"), [("BN", "GN"), ("GN", "BN"), ("GN", "FrozenBN")])
def test_other_norms_are_refused_though_their_factors_have_one_shape(
    tiny, tmp_path, stored, wanted
):
    path = saved(normed(tiny, stored), tmp_path / "model.pth")
    remedy = r"norm\.running_mean \(.*set d2\.MODEL\.RESNETS\.NORM"
    with pytest.raises(CheckpointError, match=rf"does not fit.*{remedy}"):
        weights.load_pretrained(normed(tiny, wanted), str(path), base=None)


def test_a_deeper_backbone_is_refused_though_all_that_the_model_has_is_there(tiny, tmp_path):
    model = tiny("ship")
    deeper = {**model.state_dict(), "backbone.bottom_up.res3.1.conv1.weight": torch.zeros(64)}
    torch.save({"model": deeper}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"res3\.1\.conv1.* in the file, not in the model"):
        weights.load_pretrained(model, str(tmp_path / "model.pth"), base=None)


def test_a_later_stage_is_not_used_and_counted(tiny, tmp_path):
    model = tiny("ship")
    longer = {**model.state_dict(), "backbone.bottom_up.res5.0.conv1.weight": torch.zeros(64)}
    torch.save({"model": longer}, tmp_path / "model.pth")
    said = weights.load_pretrained(model, str(tmp_path / "model.pth"), base=None)
    assert "1 of the file are not used" in said


def test_a_state_that_was_saved_data_parallel_fits(tiny, tmp_path):
    source, target = tiny("ship"), tiny("ship", overrides=("seed=2",))
    wrapped = {f"module.{name}": value for name, value in source.state_dict().items()}
    torch.save(wrapped, tmp_path / "model.pth")
    weights.load_pretrained(target, str(tmp_path / "model.pth"), base=None)
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in target.state_dict().items())


@pytest.mark.parametrize("content", [{"model": 3}, {"model": {"w": "x"}}, {"notes": 1}, {}])
def test_a_file_without_tensors_is_named(tiny, tmp_path, content):
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"model\.pth holds .* where a checkpoint holds"):
        weights.load_pretrained(tiny("ship"), str(tmp_path / "model.pth"), base=None)


def as_caffe2(name):
    """Detectron2's name of a tensor -> that of Caffe2's model zoo."""
    blocks = {"conv1": "branch2a", "conv2": "branch2b", "shortcut": "branch1"}
    *place, layer, kind = name.replace(".norm.", ".bn_").split(".")
    kind = {"weight": "w", "bn_weight": "bn_s", "bn_bias": "bn_b"}[kind]
    if place == ["stem"]:
        return "conv1_w" if kind == "w" else f"res_conv1_{kind}"
    return "_".join([*place, blocks[layer], kind])


@pytest.mark.parametrize("names", ["caffe2", "short", "full"])
def test_a_backbone_of_the_zoo_is_laid_under_any_head(tiny, tmp_path, rng, names):
    """Three channels, the ImageNet classifier, and with Caffe2 norms of factor and offset alone."""
    model = normed(tiny, "FrozenBN")
    features = "backbone.bottom_up."
    arrays = {
        name.removeprefix(features): rng.random(value.shape, "float32")
        for name, value in model.state_dict().items()
        if name.startswith(features)
    }
    arrays["stem.conv1.weight"] = rng.random((32, 3, 7, 7), "float32")
    content = {"model": {**arrays, "stem.fc.weight": rng.random((9, 9))}, "__author__": "a"}
    content["matching_heuristics"] = True
    if names == "full":
        content = {"model": {features + name: value for name, value in arrays.items()}}
    if names == "caffe2":
        content = {as_caffe2(k): value for k, value in arrays.items() if "running" not in k}
        content |= {"fc1000_w": rng.random((9, 9)), "conv1_w_momentum": rng.random(3)}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(content, 2))
    weights.load_pretrained(model, str(path), base=None)
    found = {name: value.numpy() for name, value in model.state_dict().items()}
    total = arrays.pop("stem.conv1.weight").sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[f"{features}stem.conv1.weight"], total, rtol=1e-6)
    for name, array in arrays.items():
        if names == "caffe2" and "running" in name:
            array = np.zeros_like(array) if name.endswith("mean") else np.ones_like(array)
        assert np.array_equal(found[features + name], array), name


def test_what_a_checkpoint_says_of_itself_is_understood_or_refused(tmp_path):
    torch.save({"model": {}, "sar_experiments": ["x"]}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"model\.pth: what it says of its run cannot be"):
        weights.read_about(tmp_path / "model.pth")
    torch.save({"model": {}}, tmp_path / "other.pth")
    assert weights.find_about(tmp_path / "other.pth") is None


def test_an_evaluation_takes_no_other_number_of_classes(tiny, tmp_path):
    path = saved(tiny("ship"), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="does not fit"):
        weights.load_exactly(tiny("ship", "platform"), path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_a_broken_file_is_named(tiny, tmp_path, content):
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"broken\.pth cannot be read"):
        read_weights_file(tmp_path / "broken.pth")
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
            read_weights_file(path)
        assert "weights_only" not in str(refusal.value)
    assert capsys.readouterr().out == ""
