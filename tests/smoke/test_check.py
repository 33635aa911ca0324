"""task=check finds each fault planted into a dataset, names its file, and ends with exit code 2.

With warnings alone it ends with 0.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sar_experiments.data.images import write_image

HEIGHT, WIDTH = 64, 96
GOOD = [10, 10, 20, 10]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Folder of two parts, each fault once in train; val is warned of alone."""
    root = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(3)
    names = [f"P1_{i}_0.png" for i in range(12)] + ["P2_0_0.png", "other.png"]
    for name in names:
        write_image(root / name, rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8))
    (root / names[1]).unlink()
    whole = (root / names[2]).read_bytes()
    (root / names[2]).write_bytes(whole[: len(whole) // 2])
    (root / names[3]).write_text("no image at all")
    write_image(root / names[4], np.zeros((HEIGHT, WIDTH + 1), dtype=np.uint8))
    shutil.copy(root / names[0], root / "other.png")
    boxes = {
        0: [GOOD],
        5: [[WIDTH, 0, 10, 10]],
        6: [[10, 10, 0, 10]],
        7: [GOOD, GOOD],
        8: [[10, 10, 2, 10]],
        9: [[-10, 5, WIDTH + 20, 20]],
        10: [GOOD],
        11: [GOOD, GOOD],
    }
    train = coco(names[:12], boxes)
    objects = train["annotations"]
    objects[0]["area"] = 1e6
    objects[-2]["id"] = objects[0]["id"]
    objects[-1]["category_id"] = 7
    train["images"].append({**train["images"][10], "file_name": "again.png"})
    (root / "train.json").write_text(json.dumps(train))
    val = coco(["P1_99_0.png", "other.png"], {0: [GOOD], 1: [GOOD]})
    shutil.copy(root / "P2_0_0.png", root / "P1_99_0.png")
    (root / "val.json").write_text(json.dumps(val))
    return root


def coco(names, boxes):
    images = [
        {"id": i, "file_name": name, "height": HEIGHT, "width": WIDTH}
        for i, name in enumerate(names, start=1)
    ]
    objects = [
        {"image_id": i + 1, "category_id": 1, "bbox": box, "area": box[2] * box[3]}
        for i, of_image in boxes.items()
        for box in of_image
    ]
    for number, each in enumerate(objects, start=1):
        each["id"] = number
    categories = [{"id": 1, "name": "ship"}, {"id": 2, "name": "bridge"}]
    return {"images": images, "annotations": objects, "categories": categories}


def check(output, *arguments):
    return subprocess.run(
        [
            sys.executable, "-m", "sar_experiments", "task=check", "usecase=infra", "hardware=cpu",
            f"output={output}", *arguments,
        ],
        capture_output=True,
        text=True,
        cwd=output.parent,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        timeout=240,
        check=False,
    )  # fmt: skip


def data(root, train="train.json"):
    return [
        f"usecase.train.images={root}",
        f"usecase.train.annotations={root / train}",
        f"usecase.val.images={root}",
        f"usecase.val.annotations={root / 'val.json'}",
    ]


def test_each_planted_fault_is_found_and_named(planted, tmp_path):
    process = check(tmp_path / "check", *data(planted))
    assert process.returncode == 2, process.stdout + process.stderr
    report = json.loads((tmp_path / "check" / "check.json").read_text())
    kinds = {(k["severity"], k["part"], k["code"]): k["count"] for k in report["kinds"]}
    assert kinds == {
        ("error", "train", "image missing"): 1,
        ("error", "train", "image broken"): 2,
        ("error", "train", "image size differs"): 1,
        ("error", "train", "image id twice"): 2,
        ("error", "train", "image left out"): 1,
        ("warning", "train", "annotation id replaced"): 1,
        ("error", "train", "class unknown"): 1,
        ("error", "train", "box outside"): 1,
        ("error", "train", "box empty"): 1,
        ("warning", "train", "box twice"): 1,
        ("warning", "train", "box tiny"): 1,
        ("warning", "train", "box larger than the image"): 1,
        ("warning", "train", "area wrong"): 1,
        ("warning", "train", "class unused"): 1,
        ("warning", "val", "class unused"): 1,
        ("warning", "val", "image shared by parts"): 1,
        ("warning", "val", "scene shared by parts"): 1,
    }
    for sentence in (
        "P1_1_0.png is missing",
        "P1_2_0.png is cut short after",
        "P1_3_0.png has no readable header",
        "P1_4_0.png is 97 x 64 px, annotated as 96 x 64 px",
        "train.json: images[12] repeats id 11",
        "annotations[8] has id 1, and so on: 1 annotations whose id is",
        "category_id 7, which is none of the categories",
        "has the box (96, 0, 106, 10) outside its image of 96 x 64 px",
        "has the empty box (10, 10, 10, 20)",
        "annotation 5 repeats the box (10, 10, 30, 20) of annotation 4",
        "other.png, which train holds as",
        "scene P1 is in train and in val",
        "leaves out train: 4 images, 2 boxes, 4 records",
    ):
        assert sentence in process.stdout
    assert report["parts"]["val"]["mean"]
    assert report["parts"]["train"]["objects"] == {"ship": 8, "bridge": 0}
    assert (tmp_path / "check" / "check.png").is_file()
    assert [each.name for each in tmp_path.iterdir()] == ["check"]  # nothing beside the folder
    assert (Path(os.environ["SAR_CACHE_DIR"]) / "check.sqlite").is_file()
    result = json.loads((tmp_path / "check" / "result.json").read_text())
    assert result["status"] == "failed"
    assert "train: image missing 1" in result["why"]


@pytest.mark.slow
def test_warnings_alone_end_with_zero(planted, tmp_path):
    process = check(tmp_path / "check", *data(planted, train="val.json"))
    assert process.returncode == 0, process.stdout + process.stderr
    assert "0 errors, 6 warnings" in process.stdout
    assert "val: image shared by parts: 2" in process.stdout
