"""A CFAR made from a config: pixels in metres are told, never guessed; channels fit as anywhere."""

import numpy as np
import pytest

from sar_experiments.errors import ConfigError, DatasetError, SceneError
from sar_experiments.predict.detector import SceneHeader, Tile
from sar_experiments.tasks.cfar import make_cfar
from sar_experiments.tasks.detectors import choose_detector


@pytest.fixture
def config(typed_config, tmp_path):
    """The use case that every command has by default."""
    folder = tmp_path / "simulated"
    return typed_config(
        "model=cfar", "task=evaluate", "usecase=demo", f"usecase.simulator.folder={folder}"
    )


def header_of(path, bands=("1",), pixel_m=None):
    return SceneHeader(
        name="scene", files=(path,), height=100, width=100, bands=bands, dtype="uint8",
        pixel_m=pixel_m,
    )  # fmt: skip


def test_only_the_simulators_own_images_have_its_size_of_a_pixel(config, tmp_path):
    detector_for = choose_detector(config, tmp_path).detector_for
    own, real = tmp_path / "simulated" / "val" / "a.png", tmp_path / "real.png"
    metres = config.usecase.simulator.pixel_m
    assert detector_for(header_of(own)).pixel_m == (metres, metres)
    assert detector_for(header_of(real, pixel_m=(3.0, 4.0))).pixel_m == (3.0, 4.0)
    with pytest.raises(ConfigError, match=r"model\.cfar\.pixel_m must be set, in metres"):
        detector_for(header_of(real))
    with pytest.raises(ConfigError, match=r"model\.cfar\.pixel_m must be set"):
        make_cfar(config, ("ship",), [own, real], pixel_m=None)


def test_a_gray_colour_picture_gives_prediction_what_it_gives_evaluation(config, tmp_path, rng):
    gray = np.clip(40 * np.sqrt(rng.gamma(4, 1 / 4, (150, 160, 1))), 0, 255).astype(np.uint8)
    gray[70:73, 40:48] = 255
    colour = np.repeat(gray, 3, axis=2)
    choice = choose_detector(config, tmp_path)
    assert choice.channels == 1
    cfar = choice.detector_for(header_of(tmp_path / "a.png", ("1", "2", "3"), (10.0, 10.0)))
    valid = np.ones((150, 160), bool)
    (found,) = cfar([Tile(colour, valid, None)])
    alone = cfar.find(gray, valid)
    assert len(found) >= 1
    assert (found.boxes.tolist(), found.scores.tolist()) == (
        alone.boxes.tolist(), alone.scores.tolist(),
    )  # fmt: skip
    colour[0, 0, 0] += 1
    with pytest.raises(DatasetError, match=r"3 channels, radiometry\.channels=1 takes one"):
        cfar([Tile(colour, valid, None)])


def test_other_bands_than_the_radiometrys_are_refused(typed_config, tmp_path):
    config = typed_config("model=cfar", "task=evaluate", "radiometry=sentinel1_db")
    detector_for = choose_detector(config, tmp_path).detector_for
    header = header_of(tmp_path / "a.tif", ("1", "2", "3"), (10.0, 10.0))
    with pytest.raises(SceneError, match=r"has the bands 1, 2, 3, the CFAR takes 2"):
        detector_for(header)
