"""An exported network finds what the live one finds, in images of any size, without PyTorch."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from sar_experiments.config import to_plain
from sar_experiments.data.radiometry import Radiometry
from sar_experiments.detections import Detections
from sar_experiments.errors import CheckpointError
from sar_experiments.export import agreement
from sar_experiments.export.session import METADATA_KEY, OnnxAbout, open_onnx
from sar_experiments.thresholds import chosen

pytestmark = pytest.mark.detectron2
onnx = pytest.importorskip("onnx", reason="needs the extra export")
pytest.importorskip("onnxruntime", reason="needs the extra export")

CLASSES = ("ship", "platform")
THRESHOLDS = chosen({"ship": (0.4, 0.8), "platform": None}, {"ship": 9, "platform": 3})
SIZES = ((256, 320), (97, 130), (200, 160))


def built(config):
    """A model of random weights whose scores are spread, as a trained one's are."""
    import torch

    from sar_experiments.model import build

    torch.manual_seed(3)
    spec = build.ModelSpec(config.model.base, config.d2, CLASSES)
    model = build.build_model(build.detectron2_config(spec, device="cpu")).eval()
    for name, weights in model.named_parameters():
        if name.endswith(("cls_score.weight", "objectness_logits.weight", "bbox_pred.weight")):
            weights.data *= 30
        if name == "head.cls_score.bias":  # RetinaNet starts with all scores near 0.01
            weights.data.zero_()
    return model


def about_of(config):
    return OnnxAbout(
        config=to_plain(config),
        classes=CLASSES,
        radiometry=Radiometry.from_config(config.radiometry).to_dict(),
        step=7,
        checkpoint="model_best.pth",
        chip_px=128,
        thresholds=THRESHOLDS,
        versions={"torch": "1"},
    )


def exported(config, path):
    from sar_experiments.export.onnx_file import export_onnx

    model = built(config)
    export_onnx(model, path, about_of(config), channels=config.radiometry.channels)
    return model


def compared(model, path, images):
    import torch

    from sar_experiments.export.onnx_file import BoxesOfOneImage

    live, detector = BoxesOfOneImage(model).eval(), open_onnx(path, threads=1)
    pairs = []
    for image in images:
        height, width = image.shape[:2]
        with torch.no_grad():
            output = live(torch.from_numpy(image.transpose(2, 0, 1).copy()))
        found = detector.find_encoded(image, input_height=height, input_width=width)
        pairs.append((Detections.of(*(each.numpy() for each in output)), found))
    return agreement.compare(pairs)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    from hydra import compose, initialize_config_dir

    from sar_experiments import cli

    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    with initialize_config_dir(cli.conf_dir(), version_base="1.3"):
        config = cli.typed(compose("config", overrides=["model=tiny", "hardware=cpu"]))
    return config, exported(config, path), path


def test_images_of_other_sizes_than_the_traced_one_agree(tiny, rng):
    _, model, path = tiny
    images = [rng.random((*size, 1), dtype=np.float32) for size in SIZES]
    found = compared(model, path, images)
    assert found.holds, found.sentence()
    assert found.detections > 50
    assert found.max_box_px < 1e-2


def test_the_file_says_who_it_is(tiny):
    config, _, path = tiny
    detector = open_onnx(path, threads=1)
    assert detector.about.to_json() == about_of(config).to_json()
    assert detector.classes == CLASSES
    assert detector.radiometry == Radiometry.from_config(config.radiometry)


def test_the_file_holds_the_threshold_of_each_class(tiny):
    thresholds = open_onnx(tiny[2], threads=1).about.thresholds
    assert thresholds == THRESHOLDS
    assert thresholds.scores == {"ship": 0.4, "platform": 0.5}


@pytest.mark.parametrize(("min_score", "scores"), [(0.3, [0.3, 0.3]), (None, None)])
def test_a_file_of_an_older_version_has_one_threshold_for_all_classes(
    tiny, tmp_path, min_score, scores
):
    content = onnx.load(tiny[2])
    about = json.loads(content.metadata_props[0].value)
    del about["thresholds"]
    content.metadata_props[0].value = json.dumps({**about, "min_score": min_score})
    onnx.save(content, tmp_path / "old.onnx")
    thresholds = open_onnx(tmp_path / "old.onnx", threads=1).about.thresholds
    assert (None if thresholds is None else list(thresholds.scores.values())) == scores


def test_a_file_with_broken_thresholds_is_refused(tiny, tmp_path):
    content = onnx.load(tiny[2])
    (each,) = (each for each in content.metadata_props if each.key == METADATA_KEY)
    about = json.loads(each.value)
    del about["thresholds"]["classes"]["platform"]
    each.value = json.dumps(about)
    onnx.save(content, tmp_path / "broken.onnx")
    with pytest.raises(CheckpointError, match="task=export writes files that do"):
        open_onnx(tmp_path / "broken.onnx", threads=1)


def test_tiles_go_through_the_radiometry_and_no_data_is_dark(tiny, rng):
    _, _, path = tiny
    detector = open_onnx(path, threads=1)
    pixels = rng.integers(0, 255, (96, 80, 1)).astype(np.uint8)
    valid = np.ones((96, 80), bool)
    valid[:, 50:] = False
    dark = np.where(valid[:, :, None], pixels, 0).astype(np.uint8)
    first, second = (detector.find(each, valid) for each in (pixels, dark))
    assert first.boxes.tolist() == second.boxes.tolist()
    assert (first.boxes[:, 2] <= 80).all()


def test_boxes_come_back_in_pixels_of_the_tile_when_it_is_enlarged(tiny, rng):
    _, _, path = tiny
    pixels = rng.integers(0, 255, (96, 80, 1)).astype(np.uint8)
    valid = np.ones((96, 80), bool)
    detector = replace(open_onnx(path, threads=1), scale=2.0)
    found = detector.find(pixels, valid)
    assert len(found)
    assert found.boxes.max() <= 96
    assert (np.diff(found.scores) <= 0).all()


def test_an_image_without_objects_gives_none(tmp_path, typed_config):
    config = typed_config("model=tiny", "hardware=cpu", "evaluation.min_score=0.9999999")
    exported(config, tmp_path / "model.onnx")
    detector = open_onnx(tmp_path / "model.onnx", threads=1)
    found = detector.find_encoded(
        np.zeros((64, 64, 1), np.float32), input_height=64, input_width=64
    )
    assert len(found) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    [
        "faster_rcnn_r50_fpn",
        "faster_rcnn_r101_fpn",
        "retinanet_r50_fpn",
        "cascade_rcnn_r50_fpn",
        "mask_rcnn_r50_fpn",
    ],
)
def test_every_family_agrees(tmp_path, typed_config, rng, family):
    config = typed_config(f"model={family}", "model.weights=none", "hardware=cpu")
    model = exported(config, tmp_path / "model.onnx")
    images = [rng.random((*size, 1), dtype=np.float32) for size in SIZES]
    found = compared(model, tmp_path / "model.onnx", images)
    assert found.holds, found.sentence()
    assert found.detections > 20


def test_a_model_that_cannot_be_traced_is_named_with_the_reason(tmp_path, typed_config):
    import torch

    from sar_experiments.export.onnx_file import export_onnx

    class Rotated(torch.nn.Module):
        def forward(self, batch):
            raise NotImplementedError("no symbol for nms_rotated")

    path = tmp_path / "model.onnx"
    with pytest.raises(CheckpointError, match=r"Rotated cannot be exported.*nms_rotated.*torch"):
        export_onnx(Rotated(), path, about_of(typed_config()), channels=1)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_file_and_one_of_others_are_refused(tmp_path, tiny):
    with pytest.raises(CheckpointError, match=r"missing; task=export"):
        open_onnx(tmp_path / "none.onnx", threads=1)
    (tmp_path / "broken.onnx").write_bytes(b"not a network")
    with pytest.raises(CheckpointError, match="cannot be read as an ONNX file"):
        open_onnx(tmp_path / "broken.onnx", threads=1)
    content = onnx.load(tiny[2])
    del content.metadata_props[:]
    onnx.save(content, tmp_path / "foreign.onnx")
    with pytest.raises(CheckpointError, match="does not say which run"):
        open_onnx(tmp_path / "foreign.onnx", threads=1)


def test_what_runs_an_exported_network_imports_no_torch(tiny):
    program = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from sar_experiments.export.session import open_onnx\n"
        f"detector = open_onnx(Path({str(tiny[2])!r}), threads=1)\n"
        "detector.find(np.zeros((64, 64, 1), np.uint8), np.ones((64, 64), bool))\n"
        "import json; print(json.dumps(sorted({'torch', 'detectron2'} & set(sys.modules))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []
