"""``source=`` means files, folders, patterns and products; polarisations find together."""

from pathlib import Path

import pytest

from sar_experiments.errors import SceneError
from sar_experiments.predict.sources import find_scenes, sentinel1_resolution_m


@pytest.fixture
def touch(tmp_path):
    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        return tmp_path

    return make


def names(scenes):
    return [(scene.name, [file.name for file in scene.files]) for scene in scenes]


def test_a_folder_holds_its_images_in_order(touch):
    folder = touch("b.tif", "a.png", "notes.txt", ".hidden.tif", "all.vrt", "below/c.tif")
    assert names(find_scenes(str(folder))) == [("a", ["a.png"]), ("b", ["b.tif"])]


def test_a_pattern_finds_what_fits(touch):
    folder = touch("x/a.tif", "y/b.tif", "y/c.png")
    assert names(find_scenes(f"{folder}/*/*.tif")) == [("a", ["a.tif"]), ("b", ["b.tif"])]
    assert len(find_scenes(f"{folder}/**/*.*")) == 3


def test_several_sources_are_joined_and_none_counts_twice(touch):
    folder = touch("a.tif", "b.tif")
    assert len(find_scenes([str(folder / "a.tif"), str(folder)])) == 2


def test_files_that_differ_in_polarisation_are_one_scene(touch):
    folder = touch("p_VH.tif", "p_VV.tif", "q_vv.tif")
    assert names(find_scenes(str(folder))) == [("p", ["p_VV.tif", "p_VH.tif"]), ("q", ["q_vv.tif"])]


def test_a_network_of_one_channel_takes_the_first_polarisation(touch):
    folder = touch("p_vh.tif", "p_vv.tif")
    assert names(find_scenes(str(folder), channels=1)) == [("p", ["p_vv.tif"])]


def test_polarisations_can_be_chosen_in_any_order(touch):
    folder = touch("p_vh.tif", "p_vv.tif")
    (scene,) = find_scenes(str(folder), polarisations=["vh", "vv"], channels=2)
    assert scene.polarisations == ("vh", "vv")
    with pytest.raises(SceneError, match="lacks hh of p; there are vv, vh"):
        find_scenes(str(folder), polarisations=["hh"])


PRODUCT = "S1A_IW_GRDH_1SDV_20210105T135116_20210105T135141_036018_043849_6BC8"
START = "20210105t135116-20210105t135141-036018-043849"


@pytest.fixture
def product(touch):
    """A product's files by the Sentinel-1 Product Specification; returns the folder it lies in."""

    def make(folder, measurement, *pols):
        names = [measurement.format(pol, number) for number, pol in enumerate(pols, start=1)]
        annotations = [name.replace(".tiff", ".xml") for name in names]
        return touch(
            f"{folder}/manifest.safe",
            *(f"{folder}/measurement/{name}" for name in names),
            *(f"{folder}/annotation/{name}" for name in annotations),
            *(f"{folder}/annotation/calibration/calibration-{name}" for name in annotations),
            *(f"{folder}/annotation/calibration/noise-{name}" for name in annotations),
            f"{folder}/preview/quick-look.png",
            f"{folder}/preview/map-overlay.kml",
            f"{folder}/support/s1-level-1-measurement.xsd",
        )

    return make


GRD = f"s1a-iw-grd-{{}}-{START}-{{:03d}}.tiff"
COG = f"s1a-iw-grd-{{}}-{START}-{{:03d}}-cog.tiff"


@pytest.mark.parametrize("source", ["", "measurement", "manifest.safe", "..", "../*.SAFE"])
@pytest.mark.parametrize(
    ("folder", "measurement"), [(f"{PRODUCT}.SAFE", GRD), (f"{PRODUCT}_COG.SAFE", COG)]
)
def test_a_sentinel1_product_is_one_scene(product, folder, measurement, source):
    """Its preview and annotations are none, whatever it is reached by."""
    (scene,) = find_scenes(f"{product(folder, measurement, 'vv', 'vh') / folder}/{source}")
    assert scene.polarisations == ("vv", "vh")
    assert [file.name for file in scene.files] == [
        measurement.format("vv", 1), measurement.format("vh", 2)
    ]  # fmt: skip
    assert scene.name == f"s1a-iw-grd-{START}"


def test_measurements_that_archives_gave_short_names_are_called_by_their_product(product):
    folder = product(PRODUCT, "iw-{}.tiff", "vv", "vh")
    (scene,) = find_scenes(str(folder / PRODUCT))
    assert (scene.name, scene.polarisations) == (PRODUCT, ("vv", "vh"))


def test_each_swath_of_a_product_is_a_scene(product):
    swaths = f"s1a-iw{{1}}-slc-{{0}}-{START}-{{1:03d}}.tiff"
    folder = product("P.SAFE", swaths, "vv", "vv", "vv")
    assert [each.name for each in find_scenes(str(folder))] == [
        f"s1a-iw{number}-slc-{START}" for number in (1, 2, 3)
    ]


def test_a_product_that_lacks_a_polarisation_is_refused(product):
    folder = product("P.SAFE", GRD, "vv")
    with pytest.raises(SceneError, match=r"vv alone, and .* predict\.polarisations=\[vv,vv\]"):
        find_scenes(str(folder), channels=2)
    with pytest.raises(SceneError, match=r"lacks vh of s1a-iw-grd-.*; there are vv"):
        find_scenes(str(folder), polarisations=["vh"], channels=1)
    (twice,) = find_scenes(str(folder), polarisations=["vv", "vv"], channels=2)
    assert [file.name for file in twice.files] == [GRD.format("vv", 1)] * 2
    assert [len(find_scenes(str(folder), channels=n)[0].files) for n in (1, 3)] == [1, 1]


def test_a_single_file_that_is_no_product_may_hold_all_bands(touch):
    folder = touch("p_vv.tif")
    (scene,) = find_scenes(str(folder), polarisations=["vh"], channels=2)
    assert [file.name for file in scene.files] == ["p_vv.tif"]


@pytest.mark.parametrize("source", ["", "*.zip", f"{PRODUCT}.SAFE.zip"])
def test_a_packed_product_is_refused_with_what_to_do(touch, source):
    folder = touch(f"{PRODUCT}.SAFE.zip")
    with pytest.raises(SceneError, match=r"SAFE\.zip is packed[:;] unpack it"):
        find_scenes(f"{folder}/{source}")


def test_images_of_one_name_keep_apart(touch):
    folder = touch("x/a.tif", "y/a.tif")
    assert [each.name for each in find_scenes(f"{folder}/*/a.tif")] == ["x_a", "y_a"]
    folder = touch("z/a.tif", "z/a.png")
    assert [each.name for each in find_scenes(f"{folder}/z")] == ["z_a", "z_a_2"]


@pytest.mark.parametrize(
    ("source", "sentence"), [("nowhere.tif", "does not exist"), ("empty", "holds no scenes")]
)
def test_what_is_not_there_is_refused(tmp_path, source, sentence):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SceneError, match=sentence):
        find_scenes(str(tmp_path / source))


@pytest.mark.parametrize("others", [[], ["P.SAFE/measurement/s1a-wv-ocn-vv-001.nc"]])
def test_a_product_without_images_is_refused(touch, others):
    folder = touch("P.SAFE/manifest.safe", *others)
    with pytest.raises(SceneError, match=r"no TIFF in a folder measurement; .* level 1, GRD"):
        find_scenes(str(folder / "P.SAFE"))


@pytest.mark.parametrize(
    ("file", "pixel_m", "resolution_m"),
    [
        ("S1A_IW_GRDH_1SDV_20210105T135116_20210105T135141_036018_043849_6BC8.tif", 10, 21),
        ("s1a-iw-grd-vv-20210105t135116-20210105t135141-036018-043849-001.tiff", 10.1, 21),
        ("s1a-iw-grd-vv-20210105t135116-20210105t135141-036018-043849-001.tiff", 40.2, 87.5),
        ("s1c-ew-grd-hh-20210105t135116-20210105t135141-036018-043849-001-cog.tiff", 25, 50),
        ("S1B_EW_GRDM_1SDH_20210105T135116_x.tif", 40, 90),
        ("S1A_S3_GRDH_1SDV_x.tif", 10, 23),
        ("x/S1A_IW_GRDH_1SDV_x.SAFE/measurement/iw-vv.tiff", 10, 21),
        ("ss1a-iw-grd.tif", 10, None),
        ("2021-01-05.tif", 10, None),
    ],
)
def test_the_resolution_of_sentinel1_is_that_of_its_mode_and_class(file, pixel_m, resolution_m):
    assert sentinel1_resolution_m(Path(file), pixel_m) == resolution_m
