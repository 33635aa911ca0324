"""``source=`` means files, folders, patterns and products; polarisations find together."""

import pytest

from sar_experiments.errors import SceneError
from sar_experiments.predict.sources import find_scenes

S1 = "s1a-iw-grd-{}-20210105t135116-20210105t135141-036018-043849-{}.tiff"


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
    folder = touch("b.tif", "a.png", "notes.txt", ".hidden.tif", "below/c.tif")
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


@pytest.mark.parametrize("source", ["P.SAFE", "P.SAFE/measurement", "."])
def test_a_sentinel1_product_is_one_scene(touch, source):
    measurement = "P.SAFE/measurement"
    folder = touch(
        "P.SAFE/manifest.safe",
        f"{measurement}/{S1.format('vh', '002')}",
        f"{measurement}/{S1.format('vv', '001')}",
    )
    (scene,) = find_scenes(str(folder / source))
    assert scene.polarisations == ("vv", "vh")
    assert scene.name == "s1a-iw-grd-20210105t135116-20210105t135141-036018-043849"


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


def test_a_product_without_measurements_is_refused(touch):
    folder = touch("P.SAFE/manifest.safe")
    with pytest.raises(SceneError, match="no folder measurement"):
        find_scenes(str(folder / "P.SAFE"))
