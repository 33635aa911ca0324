"""Radiometry from files to checkpoint and back.

One file per polarisation is a dataset; statistics are measured and travel with the run; a
checkpoint is not measured with another radiometry unless that is forced.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml

from sar_experiments.config import from_plain
from sar_experiments.data.images import write_geotiff
from sar_experiments.errors import ConfigError

pytest.importorskip("detectron2")

from sar_experiments.model.weights import read_about
from sar_experiments.tasks.statistics import name_other_radiometry, with_statistics
from sar_experiments.tasks.trained import as_trained

pytestmark = pytest.mark.detectron2

SIDE_PX = 96
SEA_DB = {"vv": -16.0, "vh": -26.0}
SHIP = (30, 40, 24, 12)


def write_dataset(folder, *, images=8):
    """Images of one bright ship on sea in decibels, a third of them without data (0.0)."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    left, top, width, height = SHIP
    records = []
    for index in range(images):
        for name, level_db in SEA_DB.items():
            pixels = rng.normal(level_db, 2.0, (SIDE_PX, SIDE_PX)).astype(np.float32)
            pixels[top : top + height, left : left + width] = -2.0
            pixels[:, : SIDE_PX // 4] = 0.0
            write_geotiff(
                folder / f"chip{index}_{name}.tif",
                pixels,
                transform=(10, 0, 4e5, 0, -10, 4e6),
                crs="EPSG:32611",
                nodata=None,
                tags={},
            )
        file = {"id": index, "file_name": f"chip{index}_vv.tif", "scene": f"s{index}"}
        records.append({**file, "height": SIDE_PX, "width": SIDE_PX})
    boxes = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": list(SHIP), "area": width * height}
        for i in range(images)
    ]
    truth = {"images": records, "annotations": boxes, "categories": [{"id": 1, "name": "ship"}]}
    (folder / "truth.json").write_text(json.dumps(truth))
    return folder


def call(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "sar_experiments", "hardware=cpu", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training on one file per polarisation, its statistics left open."""
    folder = tmp_path_factory.mktemp("polarisations")
    data = write_dataset(folder / "data")
    process = call(
        "usecase=ships",
        "model=tiny",
        "augment=sar_strong",
        "augment.min_size_train=[96]",
        "augment.min_size_test=96",
        "radiometry=sentinel1_db",
        "radiometry.stored_as=db",
        "radiometry.mean=null",
        "radiometry.std=null",
        "usecase.polarisations=[vv,vh]",
        f"usecase.train.images={data}",
        f"usecase.train.annotations={data / 'truth.json'}",
        "solver.max_iter=4",
        "solver.ims_per_batch=2",
        "solver.eval_period=0",
        "hardware.num_workers=0",
        f"output={folder / 'run'}",
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return folder / "run", process.stdout


def test_statistics_are_measured_on_valid_pixels_and_stored_with_the_run(trained):
    folder, output = trained
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (vv, vh), std = config["radiometry"]["mean"], config["radiometry"]["std"]
    # Sea of -16 dB is 0.4 of [-30, 5] dB, of -26 dB 0.257 of [-35, 0]; the ship adds a little.
    assert vv == pytest.approx(0.4, abs=0.03)
    assert vh == pytest.approx(0.257, abs=0.04)
    assert f"radiometry.mean=[{vv:g},{vh:g}]" in output
    detectron2 = yaml.safe_load((folder / "detectron2.yaml").read_text())["MODEL"]
    assert detectron2["PIXEL_MEAN"] == [vv, vh]
    assert detectron2["PIXEL_STD"] == pytest.approx(std)


def test_the_stem_takes_one_channel_per_polarisation_file(trained):
    import torch

    folder, _ = trained
    state = torch.load(folder / "model_final.pth", weights_only=True)
    (stem,) = [v for k, v in state["model"].items() if k.endswith("stem.conv1.weight")]
    assert stem.shape[1] == 2
    assert state["sar_experiments"]["config"]["radiometry"]["mean"]


def asked(folder, *overrides):
    """Return the config of an evaluation of the run with these overrides."""
    about = read_about(folder / "model_best.pth")
    config = from_plain({**about.config, "weights": str(folder)})
    wanted = replace(
        config.radiometry, **{k: v for k, v in overrides if k not in ("force", "name")}
    )
    config = replace(config, radiometry=wanted, force=("force", True) in overrides)
    return as_trained(config, about, ["radiometry=other"])


def test_another_radiometry_than_the_checkpoints_is_refused(trained):
    folder, _ = trained
    with pytest.raises(ConfigError, match=r"lee_filter_px=0 and 5.*force=true"):
        asked(folder, ("lee_filter_px", 5))


def test_the_checkpoints_own_radiometry_may_be_named(trained):
    folder, _ = trained
    stored = yaml.safe_load((folder / "config.yaml").read_text())["radiometry"]
    assert asked(folder).radiometry.mean == stored["mean"]
    # Left open on the command line: as measured then.
    assert asked(folder, ("mean", None), ("std", None)).radiometry.mean == stored["mean"]


def test_starting_from_weights_of_another_radiometry_is_named(trained, caplog):
    folder, _ = trained
    config = from_plain(read_about(folder / "model_best.pth").config)
    config = replace(config, model=replace(config.model, weights=str(folder)))
    name_other_radiometry(config)
    assert not caplog.records
    name_other_radiometry(replace(config, radiometry=replace(config.radiometry, nodata=None)))
    assert "another radiometry: nodata=0.0 and None" in caplog.text


def test_a_run_that_goes_on_keeps_the_statistics_it_began_with(trained, tmp_path):
    folder, _ = trained
    stored = from_plain(yaml.safe_load((folder / "config.yaml").read_text()))
    left_open = replace(stored, radiometry=replace(stored.radiometry, mean=None, std=None))
    for name in ("check.json", "last_checkpoint", "model_final.pth"):
        shutil.copy(folder / name, tmp_path)
    check = json.loads((tmp_path / "check.json").read_text())
    check["parts"]["train"]["mean"] = [0.9, 0.9]  # as if images had been added meanwhile
    (tmp_path / "check.json").write_text(json.dumps(check))
    assert with_statistics(left_open, tmp_path).radiometry == stored.radiometry
    (tmp_path / "last_checkpoint").unlink()
    assert with_statistics(left_open, tmp_path).radiometry.mean == [0.9, 0.9]


def test_statistics_of_other_images_are_named(trained, caplog):
    folder, _ = trained
    stored = from_plain(yaml.safe_load((folder / "config.yaml").read_text()))
    with_statistics(stored, folder)
    assert not caplog.records
    foreign = replace(stored.radiometry, mean=[0.9, 0.9], std=[0.01, 0.01])
    with_statistics(replace(stored, radiometry=foreign), folder)
    assert "radiometry.mean=null radiometry.std=null takes theirs" in caplog.text


@pytest.mark.slow
def test_another_radiometry_can_be_forced(trained, tmp_path):
    folder, _ = trained
    forced = call(
        *("task=evaluate", f"weights={folder}", "radiometry=xview3_sigmoid", "force=true"),
        f"output={tmp_path / 'forced'}",
    )
    assert forced.returncode == 0, forced.stderr
    assert "forced: another radiometry" in forced.stdout
    config = yaml.safe_load((tmp_path / "forced" / "config.yaml").read_text())
    assert config["radiometry"]["encoding"] == "db_sigmoid"
    assert config["d2"]["MODEL"]["PIXEL_MEAN"] == config["radiometry"]["mean"] == [0.65, 0.25]
