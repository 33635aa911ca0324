"""A service keeps of each class what the run, or the command, says."""

from types import SimpleNamespace

import numpy as np
import pytest

from sar_experiments.config import to_yaml
from sar_experiments.data.images import write_image
from sar_experiments.detections import Detections
from sar_experiments.tasks.detectors import Choice, min_scores_of
from sar_experiments.tasks.serve import Finder, _service
from sar_experiments.thresholds import chosen

CLASSES = ("ship", "platform")


class TwoClasses:
    """A ship of 0.65 and a platform of 0.35 in each tile."""

    classes = CLASSES

    def __call__(self, tiles):
        boxes = [[20, 20, 40, 30], [60, 60, 70, 70]]
        return [Detections.of(boxes, [0.65, 0.35], [0, 1]) for _ in tiles]


@pytest.fixture
def serve(typed_config, tmp_path):
    """Return what a service says of itself, and the classes that it finds in an image."""
    (tmp_path / "model.pth").touch()
    image = tmp_path / "a.png"
    write_image(image, np.full((100, 100), 40, np.uint8))
    stored = chosen({"ship": (0.7, 0.9), "platform": (0.3, 0.8)}, {"ship": 9, "platform": 4})

    def served(*overrides):
        weights = f"weights={tmp_path / 'model.pth'}"
        config = typed_config("task=serve", weights, "hardware=cpu", *overrides)
        assert "min_score" in to_yaml(config)
        scores = min_scores_of(config, stored, CLASSES)
        choice = Choice(lambda _: TwoClasses(), CLASSES, 1, None, scores, "", native_px=100)
        found = Finder(config, choice)(image, name="a.png", overview=False)
        names = [each["properties"]["class"] for each in found["features"]]
        return _service(SimpleNamespace(Service=SimpleNamespace), config, choice), names

    return served


@pytest.mark.parametrize(
    ("asked", "scores", "names"),
    [
        ((), [0.7, 0.3], ["platform"]),
        (("predict.min_score={ship: 0.6}",), [0.6, 0.3], ["ship", "platform"]),
        (("predict.min_score={ship: 0.6, platform: 0.4}",), [0.6, 0.4], ["ship"]),
        (("predict.min_score=0.7",), [0.7, 0.7], []),
    ],
)
def test_each_class_has_its_own_lowest_score(serve, asked, scores, names):
    service, found = serve(*asked)
    assert list(service.min_scores.values()) == scores
    assert found == names
