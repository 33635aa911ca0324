"""The simulator's pixels follow radar statistics, its truth fits its pixels, its files are COCO.

Image k depends on the seed, the split and k alone; a dataset folder appears whole, is reused
when the settings are the same and refused when they are not.
"""

import hashlib
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from pycocotools.coco import COCO

from sar_experiments.data.images import read_image
from sar_experiments.data.simulator import (
    CLASSES,
    SimulatedObject,
    SimulatorSettings,
    draw_speckle,
    simulate_dataset,
    simulate_image,
    simulate_scene,
)
from sar_experiments.data.simulator.canvas import Canvas
from sar_experiments.data.simulator.chance import draw_normal
from sar_experiments.data.simulator.clutter import draw_sea_state, paint_ground
from sar_experiments.data.simulator.sensor import expose
from sar_experiments.errors import DatasetError

SETTINGS = SimulatorSettings(
    seed=7,
    image_size_px=128,
    pixel_m=10.0,
    looks=4.0,
    classes=CLASSES,
    train_images=6,
    val_images=2,
    test_images=1,
    scene_size_px=300,
    empty_share=0.0,
)
SHIPS = replace(SETTINGS, classes=("ship",), image_size_px=256)


def train_images(settings, count):
    return [simulate_image(settings, split="train", index=k) for k in range(count)]


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "dataset"
    simulate_dataset(SETTINGS, folder)
    return folder


# --- Radar statistics ------------------------------------------------------------------------


@pytest.mark.parametrize("looks", [1.0, 3.0, 4.4, 20.0])
def test_speckle_of_l_looks_has_mean_one_and_variance_one_over_l(looks):
    speckle = draw_speckle(np.random.default_rng(0), (400, 400), looks=looks)
    assert speckle.mean() == pytest.approx(1, abs=0.01)
    assert speckle.var() * looks == pytest.approx(1, abs=0.03)


def band_limited(distance_px):
    """Return the response to a point by integrating its spectrum: one cycle a cell of 1.25 px,
    weighted by a Hamming window of 0.75."""
    cycles = np.linspace(-0.5, 0.5, 4001) / 1.25
    window = 0.75 + 0.25 * np.cos(2 * np.pi * cycles * 1.25)
    waves = np.cos(2 * np.pi * np.multiply.outer(np.abs(distance_px), cycles))
    return (window * waves).sum(axis=-1) / window.sum()


def test_speckle_is_correlated_as_the_impulse_response_says():
    speckle = draw_speckle(np.random.default_rng(0), (1200, 1200), looks=2.0)
    lags = np.arange(400)
    response = band_limited(lags - 200)
    field = np.array([(response[: 400 - k] * response[k:]).sum() for k in range(4)])
    expected = (field / field[0]) ** 2  # of the power of circular Gaussian fields (Siegert)
    away = speckle - speckle.mean()
    for k in range(1, 4):
        for one, other in ((away[k:], away[:-k]), (away[:, k:], away[:, :-k])):
            assert (one * other).mean() / away.var() == pytest.approx(expected[k], abs=0.015)
    assert expected[1] > 0.2


def test_speckle_has_its_tail_beyond_one_in_a_million():
    speckle = draw_speckle(np.random.default_rng(1), (2000, 2000), looks=1.0)
    for rate, error in ((1e-4, 0.15), (1e-5, 0.45)):
        measured = (speckle > -np.log(rate)).mean()
        assert measured == pytest.approx(rate, rel=error)
    assert speckle.max() > -np.log(1e-6)


def test_normal_numbers_have_tails_down_to_one_in_ten_million():
    drawn = draw_normal(np.random.default_rng(2), (5000, 4000))
    for beyond, rate in ((4.5, 6.795e-6), (5.0, 5.733e-7), (5.3, 1.158e-7)):  # both sides
        expected = rate * drawn.size
        assert (np.abs(drawn) > beyond).sum() == pytest.approx(expected, abs=4 * expected**0.5)


# --- Sensor ----------------------------------------------------------------------------------


def exposed(points, size_px=256, pixel_m=10.0, **settings):
    """Return the power, relative to the sea, of points before next to nothing."""
    wide = replace(
        SETTINGS, image_size_px=size_px, pixel_m=pixel_m, dtype="float32", max_objects=1,
        **settings,
    )  # fmt: skip
    canvas = Canvas(wide, np.random.default_rng(0), size_px, 1)
    canvas.intensity = np.full((size_px, size_px), 1e-6, np.float32)
    canvas.points = list(points)
    return 10 ** ((expose(canvas) + 20) / 10)


def test_a_strong_point_shows_sidelobes_along_range_and_azimuth_as_its_band_has_them():
    power = exposed([(128.5, 100.5, 1e7)], ambiguity_db=-60.0)
    for distance in (1, 2, 3, 5, 10, 20, 40):
        expected = 1e7 * band_limited(np.array([float(distance)]))[0] ** 2
        if expected < 1:
            continue
        for row, column in ((100, 128 + distance), (100 - distance, 128), (100, 128 - distance)):
            assert 10 * np.log10(power[row, column] / expected) == pytest.approx(0, abs=0.3)
    first = max(band_limited(np.arange(1.6, 4, 0.01)) ** 2)
    assert -24 < 10 * np.log10(first) < -19  # of the highest sidelobe


def test_a_strong_point_has_ghosts_before_and_behind_it():
    settings = {"ambiguity_m": 800.0, "ambiguity_db": -25.0}
    power = exposed([(60.5, 120.5, 1e6)], **settings)
    for row in (120 - 80, 120 + 80):
        assert 10 * np.log10(power[row, 60] / power[120, 60]) == pytest.approx(-25, abs=0.5)
    assert exposed([(60.5, 120.5, 1e6)], **{**settings, "ambiguity_db": -60.0})[40, 60] < 1


def test_ghosts_of_ships_outside_are_seen_and_are_no_truth():
    settings = replace(SHIPS, classes=("platform",), empty_share=1.0, dtype="float32", looks=8.0)
    plain = replace(settings, ambiguity_db=-60.0)
    brightest = [
        np.array([np.max(image.pixels - np.median(image.pixels)) for image in train_images(s, 24)])
        for s in (settings, plain)
    ]
    assert not any(image.objects for image in train_images(settings, 4))
    assert np.quantile(brightest[0], 0.9) > np.quantile(brightest[1], 0.9) + 3


def test_swell_and_wind_rolls_have_the_stated_wavelengths():
    for name in ("swell", "rolls"):
        state = replace(
            draw_sea_state(np.random.default_rng(0), 10.0),
            swell_per_px=(0.0, 256 / 16), swell_depth=0.5 * (name == "swell"),
            rolls_per_px=(256 / 64, 0.0), rolls_depth=0.5 * (name == "rolls"),
            texture_shape=40, wind_spread=0.1, range_slope=0.0,
        )  # fmt: skip
        canvas = Canvas(SHIPS, np.random.default_rng(4), 256, 0)
        paint_ground(canvas, state, "open")
        along = np.abs(np.fft.fft2(canvas.intensity - canvas.intensity.mean())) ** 2
        spectrum = along[:128, :128]
        if name == "swell":  # 16 waves in 256 rows
            near = spectrum[12:21, :5].sum()
            assert near > 4 * spectrum[24:33, :5].sum()
        else:  # 4 in 256 columns
            near = spectrum[:3, 2:7].sum()
            assert near > 4 * spectrum[:3, 9:14].sum()


def test_the_sea_varies_more_than_its_speckle_alone():
    """K-distributed, not Rayleigh: texture adds to the variance 1/L of the intensity."""
    empty = replace(SHIPS, classes=("platform",), empty_share=1.0, looks=10.0, dtype="uint16")
    for image in train_images(empty, 4):
        intensity = image.pixels.astype(float) ** 2
        assert 0.1 < intensity.var() / intensity.mean() ** 2 < 1.0


def test_the_open_sea_is_stored_between_20_and_60():
    empty = replace(SHIPS, classes=("platform",), empty_share=1.0)
    for image in train_images(empty, 24):
        assert 20 < np.median(image.pixels) < 60


def test_more_looks_give_a_smoother_image():
    one, many = (
        simulate_image(
            replace(SHIPS, classes=("platform",), empty_share=1.0, looks=looks),
            split="train",
            index=0,
        ).pixels.astype(float)
        for looks in (1.0, 16.0)
    )
    assert one.std() / one.mean() > 1.8 * many.std() / many.mean()


def test_sixteen_bits_hold_sixteen_times_the_amplitude():
    narrow, wide = (
        simulate_image(replace(SHIPS, dtype=dtype), split="train", index=0).pixels
        for dtype in ("uint8", "uint16")
    )
    unsaturated = narrow < 255
    assert wide.dtype == np.uint16
    assert np.abs(wide[unsaturated] / 16 - narrow[unsaturated]).max() < 1
    assert wide.max() > 16 * 255


def test_decibels_are_ten_logarithms_of_the_power_around_a_sea_of_minus_20():
    amplitude, level_db = (
        simulate_image(replace(SHIPS, dtype=dtype), split="train", index=0).pixels
        for dtype in ("uint16", "float32")
    )
    assert level_db.dtype == np.float32
    clear = (amplitude > 200) & (amplitude < 65535)  # below, whole numbers are too coarse
    power_db = 20 * np.log10(amplitude[clear] / 640) - 20
    assert np.abs(power_db - level_db[clear]).max() < 0.05
    assert level_db.max() > 5
    empty = replace(SHIPS, classes=("platform",), empty_share=1.0, dtype="float32")
    assert all(-26 < np.median(image.pixels) < -16.5 for image in train_images(empty, 24))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_zero_is_kept_for_no_data(dtype):
    images = train_images(replace(SETTINGS, dtype=dtype), 4)
    assert all((image.pixels != 0).all() for image in images)


def test_images_of_decibels_are_tiffs_that_the_truth_names(tmp_path):
    settings = replace(SETTINGS, dtype="float32", scene_size_px=128)
    simulate_dataset(settings, tmp_path / "made")
    truth = COCO(tmp_path / "made" / "val.json")
    names = [image["file_name"] for image in truth.dataset["images"]]
    assert names == ["val_000000.tif", "val_000001.tif"]
    pixels = read_image(tmp_path / "made" / "val" / "images" / names[1])
    expected = simulate_image(settings, split="val", index=1).pixels
    assert np.array_equal(pixels[:, :, 0], expected)
    with rasterio.open(tmp_path / "made" / "scene.tif") as scene:
        assert (scene.dtypes[0], scene.nodata) == ("float32", 0)
        assert scene.read(1).min() < -20


# --- Truth -----------------------------------------------------------------------------------


def polygon_mask(polygon, size_px):
    """True where the centre of a pixel lies inside the convex polygon."""
    centres = np.arange(size_px) + 0.5
    x, y = centres[None, :], centres[:, None]
    corners = np.array(polygon)
    sides = [
        (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) >= 0
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True)
    ]
    return np.all(sides, axis=0)


@pytest.mark.parametrize("class_name", ["ship", "platform"])
def test_the_polygon_holds_the_bright_pixels_and_its_surroundings_do_not(class_name):
    settings = replace(SHIPS, classes=(class_name,), dtype="uint16")
    contrasts = []
    for image in train_images(settings, 12):
        sea = np.median(image.pixels)
        for found in image.objects:
            inside = polygon_mask(found.polygon, 256)
            contrasts.append(np.median(image.pixels[inside]) / sea)
            assert image.pixels[inside].max() > 4 * sea
    assert len(contrasts) >= 12
    assert np.median(contrasts) > 3


def test_boxes_are_tight_across_and_along_a_ship():
    """Of the bright columns and rows around a ship, hardly any lie outside its box."""
    overshoot = []
    for image in train_images(replace(SHIPS, classes=("ship",)), 16):
        if np.mean(image.pixels) > 60:  # land
            continue
        for found in image.objects:
            inside = polygon_mask(found.polygon, 256)
            left, top, right, bottom = (round(n) for n in found.box)
            window = (slice(max(top - 4, 0), bottom + 4), slice(max(left - 4, 0), right + 4))
            bright = image.pixels[window] > 150
            overshoot.append(1 - (bright & inside[window]).sum() / bright.sum())
    assert len(overshoot) > 10
    assert np.median(overshoot) < 0.25


def test_every_class_appears_in_its_surroundings():
    found = Counter()
    for image in train_images(replace(SETTINGS, image_size_px=256), 40):
        found.update(each.class_name for each in image.objects)
    assert set(found) == set(CLASSES)


@pytest.mark.parametrize("class_name", CLASSES)
def test_every_image_of_a_single_class_has_one_to_max_objects_of_it(class_name):
    settings = replace(SETTINGS, classes=(class_name,), max_objects=3)
    for image in train_images(settings, 6):
        assert 1 <= len(image.objects) <= 3
        assert {each.class_name for each in image.objects} == {class_name}


def test_large_pixels_can_show_ships_as_short_as_they_are():
    settings = replace(SHIPS, pixel_m=30.0, shortest_px=3.0, image_size_px=128)
    lengths = [
        np.linalg.norm(np.subtract(found.polygon[1], found.polygon[0])) - 1
        for image in train_images(settings, 24)
        for found in image.objects
    ]
    assert 2.9 < min(lengths) < 4
    assert 9 < max(lengths) < 11.1  # 330 m


@pytest.mark.parametrize("pixel_m", [3.0, 10.0])
def test_ships_are_8_to_60_px_long_and_lie_whole_in_the_image(pixel_m):
    for image in train_images(replace(SHIPS, pixel_m=pixel_m), 12):
        for found in image.objects:
            corners = np.array(found.polygon)
            assert 8.9 < np.linalg.norm(corners[1] - corners[0]) < 61.1  # half a cell each end
            assert corners.min() >= 0
            assert corners.max() <= 256


def test_boxes_in_an_image_do_not_overlap():
    for image in train_images(replace(SETTINGS, image_size_px=256), 12):
        boxes = [each.box for each in image.objects]
        for k, (left, top, right, bottom) in enumerate(boxes):
            for other in boxes[:k]:
                apart = max(left - other[2], other[0] - right, top - other[3], other[1] - bottom)
                assert apart > 0


def test_box_and_area_follow_from_the_polygon():
    diamond = SimulatedObject("ship", ((4.0, 1.0), (7.0, 4.0), (4.0, 7.0), (1.0, 4.0)))
    assert diamond.box == (1.0, 1.0, 7.0, 7.0)
    assert diamond.area == 18.0


def test_the_empty_share_is_kept():
    settings = replace(SETTINGS, classes=("ship",), empty_share=0.3)
    empty = sum(not image.objects for image in train_images(settings, 200))
    assert 40 <= empty <= 80
    assert not any(i.objects for i in train_images(replace(settings, empty_share=1.0), 10))


def test_a_class_of_weight_zero_never_appears():
    settings = replace(SETTINGS, classes=("ship", "platform"), class_weights=(1.0, 0.0))
    names = {each.class_name for image in train_images(settings, 20) for each in image.objects}
    assert names == {"ship"}


def test_classes_that_do_not_fit_are_refused_with_the_size():
    settings = replace(SETTINGS, classes=("storage_tank",), image_size_px=64, pixel_m=0.5)
    with pytest.raises(ValueError, match=r"image_size_px=64 at pixel_m=0.5 leaves no room"):
        train_images(settings, 1)


# --- Determinism -----------------------------------------------------------------------------


def test_image_k_depends_on_seed_split_and_k_alone():
    image = simulate_image(SETTINGS, split="train", index=5)
    same = simulate_image(
        replace(SETTINGS, train_images=999, val_images=0, scene_size_px=0), split="train", index=5
    )
    assert np.array_equal(image.pixels, same.pixels)
    assert image.objects == same.objects
    for other in (
        simulate_image(replace(SETTINGS, seed=8), split="train", index=5),
        simulate_image(SETTINGS, split="val", index=5),
        simulate_image(SETTINGS, split="train", index=6),
    ):
        assert not np.array_equal(image.pixels, other.pixels)


def test_the_same_settings_write_the_same_bytes(dataset, tmp_path):
    simulate_dataset(SETTINGS, tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(dataset)


def test_pixels_and_truth_are_the_same_on_every_machine():
    """Change FORMAT in the simulator together with this digest."""
    digest = hashlib.sha256()
    for image in train_images(SETTINGS, 12):
        digest.update(image.pixels.tobytes())
        digest.update(repr(image.objects).encode())
    # NumPy 2.4.6 and SciPy 1.17.1 on x86-64
    assert digest.hexdigest()[:16] == "d2909449f4cb8368"


# --- Files -----------------------------------------------------------------------------------


def test_a_dataset_holds_three_splits_a_scene_and_its_settings(dataset):
    names = sorted(path.name for path in dataset.iterdir())
    expected = ["scene.json", "scene.tif", "settings.json", "test", "test.json"]
    assert names == [*expected, "train", "train.json", "val", "val.json"]
    counts = [
        len(list((dataset / split / "images").iterdir())) for split in ("train", "val", "test")
    ]
    assert counts == [6, 2, 1]


def test_the_truth_is_coco_that_pycocotools_reads(dataset):
    coco = COCO(str(dataset / "train.json"))
    assert [each["name"] for each in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert coco.getCatIds() == [1, 2, 3, 4, 5, 6]
    assert len(coco.getImgIds()) == 6
    for annotation in coco.loadAnns(coco.getAnnIds()):
        left, top, width, height = annotation["bbox"]
        assert left >= 0
        assert left + width <= 128
        assert top >= 0
        assert top + height <= 128
        assert 0 < annotation["area"] <= width * height + 0.01
        assert len(annotation["segmentation"][0]) == 8
        assert annotation["iscrowd"] == 0


def test_the_files_hold_what_simulate_image_gives(dataset):
    truth = json.loads((dataset / "val.json").read_text())
    image = simulate_image(SETTINGS, split="val", index=1)
    record = truth["images"][1]
    pixels = read_image(dataset / "val" / "images" / record["file_name"])
    assert np.array_equal(pixels[:, :, 0], image.pixels)
    boxes = [a["bbox"] for a in truth["annotations"] if a["image_id"] == record["id"]]
    left, top, right, bottom = image.objects[0].box
    assert boxes[0] == pytest.approx([left, top, right - left, bottom - top], abs=0.01)
    assert len(boxes) == len(image.objects)
    assert truth["info"]["seed"] == 7
    assert truth["info"]["settings"]["looks"] == 4.0


def test_images_of_one_scene_are_named_so_and_no_scene_is_in_two_splits(tmp_path):
    settings = replace(
        SETTINGS, classes=("ship",), image_size_px=64, train_images=9, scene_size_px=0
    )
    simulate_dataset(settings, tmp_path / "made")
    scenes = {
        split: [
            i["scene"]
            for i in json.loads((tmp_path / "made" / f"{split}.json").read_text())["images"]
        ]
        for split in ("train", "val")
    }
    assert len(set(scenes["train"])) == 2
    assert not set(scenes["train"]) & set(scenes["val"])
    assert not (tmp_path / "made" / "scene.tif").exists()


def test_the_scene_is_geo_referenced_and_its_slanted_border_is_no_data(dataset):
    with rasterio.open(dataset / "scene.tif") as raster:
        assert raster.crs.to_epsg() == 32611
        assert tuple(raster.transform)[:6] == (10.0, 0.0, 380000.0, 0.0, -10.0, 3735000.0)
        assert raster.nodata == 0
        assert (raster.height, raster.width) == (300, 300)
        pixels = raster.read(1)
    first_valid = (pixels > 0).argmax(axis=1)
    assert first_valid[0] > first_valid[-1] > 0
    assert 0.02 < (pixels == 0).mean() < 0.2
    truth = json.loads((dataset / "scene.json").read_text())
    assert truth["images"][0]["file_name"] == "scene.tif"
    for annotation in truth["annotations"]:
        left, top, width, height = (int(n) for n in annotation["bbox"])
        assert (pixels[top : top + height, left : left + width] > 0).all()


def test_a_scene_has_room_for_every_class():
    scene = simulate_scene(replace(SETTINGS, scene_size_px=900, image_size_px=256))
    assert {each.class_name for each in scene.objects} == set(CLASSES)
    assert scene.pixels.shape == (900, 900)


def test_no_scene_is_made_of_size_zero():
    with pytest.raises(ValueError, match="scene_size_px=0"):
        simulate_scene(replace(SETTINGS, scene_size_px=0))


def test_an_interrupted_making_leaves_nothing(tmp_path):
    def interrupt(done, total):
        assert total == 9
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_dataset(SETTINGS, tmp_path / "made", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_images_of_all_splits(tmp_path):
    calls = []
    small = replace(SETTINGS, classes=("ship",), image_size_px=64, scene_size_px=0)
    simulate_dataset(small, tmp_path / "made", progress=lambda *call: calls.append(call))
    assert calls == [(k, 9) for k in range(1, 10)]


def test_a_complete_dataset_of_the_same_settings_is_used_as_it_is(dataset):
    before = files_of(dataset)
    simulate_dataset(SETTINGS, dataset, progress=lambda *_: pytest.fail("made again"))
    assert files_of(dataset) == before


def test_a_dataset_of_other_settings_is_refused_and_says_which(dataset):
    with pytest.raises(DatasetError, match=r"other settings \(seed, looks\); choose another"):
        simulate_dataset(replace(SETTINGS, seed=8, looks=1.0), dataset)


def test_a_dataset_from_before_a_setting_was_there_is_used_as_it_is(tmp_path):
    small = replace(SETTINGS, classes=("ship",), image_size_px=64, scene_size_px=0)
    simulate_dataset(small, tmp_path / "made")
    record = tmp_path / "made" / "settings.json"
    known = json.loads(record.read_text())
    assert known.pop("shortest_px") == 8.0
    record.write_text(json.dumps(known))
    simulate_dataset(small, tmp_path / "made", progress=lambda *_: pytest.fail("made again"))
    with pytest.raises(DatasetError, match=r"other settings \(shortest_px\)"):
        simulate_dataset(replace(small, shortest_px=4.0), tmp_path / "made")


def test_a_folder_with_other_files_is_refused_and_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(DatasetError, match=r"no simulated dataset \(no settings\.json\)"):
        simulate_dataset(SETTINGS, tmp_path)
    assert files_of(tmp_path) == {"thesis.tex": b"x"}


def test_an_empty_folder_is_filled(tmp_path):
    small = replace(SETTINGS, classes=("ship",), image_size_px=64, scene_size_px=0)
    simulate_dataset(small, tmp_path)
    assert (tmp_path / "train.json").is_file()


# --- Settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed=-1 must lie from 0"),
        ({"image_size_px": 32}, "image_size_px=32 must lie from 64 to 4096"),
        ({"pixel_m": 100.0}, "pixel_m=100.0 must lie from 0.5 to 40"),
        ({"looks": 0.5}, "looks=0.5 must lie from 1"),
        ({"train_images": 0}, "train_images=0 must lie from 1"),
        ({"scene_size_px": 10}, r"scene_size_px=10 must be 0 \(none\) or from 64"),
        ({"empty_share": 1.5}, "empty_share=1.5 must lie from 0 to 1"),
        ({"classes": ()}, r"classes=\[\] must name some of ship"),
        ({"classes": ("ship", "ship")}, "each once"),
        ({"classes": ("submarine",)}, "'submarine'.* must name some of ship"),
        ({"dtype": "float64"}, "dtype='float64' must be one of uint8, uint16, float32"),
        ({"shortest_px": 2.0}, "shortest_px=2.0 must lie from 3 to 32"),
        ({"ambiguity_db": 3.0}, "ambiguity_db=3.0 must lie from -60 to -10"),
        ({"ambiguity_m": 0.0}, "ambiguity_m=0.0 must lie from 500"),
        ({"max_objects": 0}, "max_objects=0 must lie from 1"),
        ({"class_weights": (1.0,)}, "class_weights=.1.0. must hold a number"),
    ],
)
def test_settings_out_of_range_are_refused_with_what_is_accepted(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **changes)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split='training' must be one of train, val, test"):
        simulate_image(SETTINGS, split="training", index=0)
