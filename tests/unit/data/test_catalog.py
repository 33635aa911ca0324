"""A dataset can be registered with Detectron2 as often as one likes, and never as another."""

from dataclasses import replace
from pathlib import Path

import pytest

from sar_experiments.data.annotations import Dataset

pytestmark = pytest.mark.detectron2


@pytest.fixture
def dataset():
    sample = {"file_name": "a.png", "image_id": 1, "height": 4, "width": 4, "scene": "a"}
    return Dataset("Ships train", ({**sample, "annotations": []},), ("ship",), Path(), Path())


def test_registering_twice_is_harmless(dataset):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from sar_experiments.data.catalog import register

    name = register(dataset)
    assert register(dataset) == name
    assert name.startswith("ships_train_")
    assert DatasetCatalog.get(name) == list(dataset.samples)
    assert MetadataCatalog.get(name).thing_classes == ["ship"]


def test_other_content_has_another_name(dataset):
    from sar_experiments.data.catalog import register

    assert register(dataset) != register(replace(dataset, classes=("boat",)))
