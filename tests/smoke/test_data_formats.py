"""Annotations that are not COCO, through the real command: read directly, and converted."""

import json
import os
import subprocess
import sys

import pytest

from sar_experiments.data.images import write_image

TURNED = "60 40 80 50 70 70 50 60 {name} {difficult}\n"


@pytest.fixture(scope="module")
def dota(tmp_path_factory):
    """Two parts of four and two images in DOTA's form; one line of train is broken."""
    import numpy as np

    root = tmp_path_factory.mktemp("dota")
    rng = np.random.default_rng(1)
    for part, count in (("train", 4), ("val", 2)):
        for folder in ("images", "labelTxt"):
            (root / part / folder).mkdir(parents=True)
        for number in range(count):
            stem = f"{part}{number}"
            pixels = rng.integers(0, 256, (96, 128), dtype=np.uint8)
            write_image(root / part / "images" / f"{stem}.png", pixels)
            text = TURNED.format(name="ship", difficult=number % 2)
            broken = "60 40 80 fifty\n" if stem == "train3" else ""
            (root / part / "labelTxt" / f"{stem}.txt").write_text(text + broken)
    return root


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("cwd")

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "sar_experiments", "usecase=ships", "hardware=cpu", *arguments],
            capture_output=True,
            text=True,
            cwd=elsewhere,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            timeout=240,
            check=False,
        )

    return run


def data(root, annotations="{part}/labelTxt", parts=("train", "val")):
    return [
        f"usecase.{part}.{key}={root}/{path.format(part=part)}"
        for part in parts
        for key, path in (("images", "{part}/images"), ("annotations", annotations))
    ]


@pytest.mark.slow
def test_dota_is_converted_with_what_was_left_out_and_reads_the_same(dota, call, tmp_path):
    folder = tmp_path / "coco"
    process = call("task=convert", *data(dota), f"output={folder}")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "train: line unreadable: 1 left out" in process.stdout
    assert "train3.txt, line 2: '60 40 80 fifty'" in process.stdout
    assert f"usecase.train.annotations={folder}/train.json" in process.stdout
    truth = json.loads((folder / "train.json").read_text())
    assert [image["file_name"] for image in truth["images"]] == [f"train{i}.png" for i in range(4)]
    assert truth["annotations"][0]["segmentation"] == [[60, 40, 80, 50, 70, 70, 50, 60]]
    assert truth["annotations"][0]["bbox"] == [50, 40, 30, 30]
    assert [each.get("difficult", 0) for each in truth["annotations"]] == [0, 1, 0, 1]
    assert len(json.loads((folder / "val.json").read_text())["images"]) == 2
    (fault,) = json.loads((folder / "convert.json").read_text())["faults"]["train"]
    assert fault["code"] == "line unreadable"

    other = tmp_path / "occupied"
    other.mkdir()
    (other / "val.json").write_text("mine")
    process = call("task=convert", *data(dota), f"output={other}")
    assert process.returncode == 2
    assert "val.json exists already and is not overwritten" in process.stdout
    assert (other / "val.json").read_text() == "mine"
    assert not (other / "train.json").exists()


@pytest.mark.slow
def test_what_dota_gets_wrong_stops_until_it_may_be_left_out(dota, call, tmp_path):
    process = call("task=check", *data(dota), f"output={tmp_path / 'check'}")
    assert process.returncode == 2
    assert "train3.txt, line 2: '60 40 80 fifty'" in process.stdout
    process = call(
        *data(dota), "task=browse", "usecase.ignore_bad_samples=true", f"output={tmp_path / 'b'}"
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert "train: left out {'records': 1}" in process.stdout
    assert (tmp_path / "b" / "contact_sheet.png").is_file()
