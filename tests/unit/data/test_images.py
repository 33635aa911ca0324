"""What a file stores is what is read: dtype, channels and order; and only from whole files.

PNG, JPEG, TIFF and GeoTIFF come back as (H, W, C); several files stack along the channels; a
file that is missing, empty, cut short, damaged or of another kind is refused by name; files are
written whole or not at all.
"""

import cv2
import numpy as np
import PIL.Image
import pytest
import rasterio

from sar_experiments.data.images import (
    DTYPES,
    SUFFIXES,
    image_size,
    polarisation_files,
    read_image,
    read_pixels,
    with_polarisations,
    write_geotiff,
    write_image,
)
from sar_experiments.data.label_files import files_in
from sar_experiments.errors import DatasetError

# Two files of one row and two pixels, written by Pillow 13.
GRAY_WITH_ALPHA = bytes.fromhex(  # gray 7 opaque, gray 200 transparent
    "89504e470d0a1a0a0000000d49484452000000020000000108040000005e2bb7010000000d49444154789c6360"
    "ff7f82010004ae01cf75aa74930000000049454e44ae426082"
)
PALETTE = bytes.fromhex(  # one bit a pixel: colour 0, colour 1
    "89504e470d0a1a0a0000000d4948445200000002000000010103000000ceecedc900000006504c54450a141e28"
    "323cd51bb4e90000000a49444154789c63700000004200412937f4ef0000000049454e44ae426082"
)


@pytest.fixture
def gray():
    return np.random.default_rng(1).integers(0, 256, (40, 60), dtype=np.uint8)


@pytest.fixture
def colour():
    return np.random.default_rng(2).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def encode(path, pixels):
    assert cv2.imwrite(str(path), pixels)
    return path


def make_tiff(path, dtype):
    profile = {"driver": "GTiff", "height": 2, "width": 2, "count": 1, "dtype": dtype}
    rasterio.open(path, "w", transform=rasterio.Affine.scale(2), **profile).close()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_gray_png_comes_back_as_one_channel_of_its_dtype(tmp_path, dtype):
    pixels = np.arange(12, dtype=dtype).reshape(3, 4) * (np.iinfo(dtype).max // 11)
    write_image(tmp_path / "a.png", pixels)
    image = read_image(tmp_path / "a.png")
    assert image.dtype == dtype
    assert image.tolist() == pixels[:, :, None].tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_a_tiff_keeps_every_value_of_every_dtype_and_channel(tmp_path, dtype, channels):
    pixels = (np.arange(4 * 5 * channels) * 211 - 50).reshape(4, 5, channels).astype(dtype)
    write_image(tmp_path / "a.tif", pixels)
    image = read_image(tmp_path / "a.tif")
    assert image.dtype == dtype
    assert np.array_equal(image, pixels)


def test_colour_is_red_green_blue_in_png_and_jpeg(tmp_path):
    red = np.zeros((16, 16, 3), np.uint8)
    red[:, :, 0] = 255
    write_image(tmp_path / "a.png", red)
    encode(tmp_path / "a.jpg", red[:, :, ::-1])
    assert read_image(tmp_path / "a.png")[8, 8].tolist() == [255, 0, 0]
    assert read_image(tmp_path / "a.jpg")[8, 8].tolist() == pytest.approx([255, 0, 0], abs=3)


def test_a_gray_jpeg_has_one_channel(tmp_path, gray):
    encode(tmp_path / "a.jpg", gray)
    assert read_image(tmp_path / "a.jpg").shape == (40, 60, 1)


def test_alpha_of_a_png_is_no_channel_but_says_where_data_is(tmp_path, colour):
    alpha = np.full((40, 60, 1), 9, np.uint8)
    alpha[:3, 5:] = 0
    encode(tmp_path / "a.png", np.concatenate([colour[:, :, ::-1], alpha], axis=2))
    image, valid = read_pixels(tmp_path / "a.png")
    assert np.array_equal(image, colour)
    assert np.array_equal(valid, alpha[:, :, 0] > 0)


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [(GRAY_WITH_ALPHA, [[[7], [200]]]), (PALETTE, [[[10, 20, 30], [40, 50, 60]]])],
)
def test_gray_with_alpha_stays_gray_and_a_palette_becomes_colour(tmp_path, encoded, expected):
    (tmp_path / "a.png").write_bytes(encoded)
    assert read_image(tmp_path / "a.png").tolist() == expected
    assert image_size(tmp_path / "a.png") == np.shape(expected)


def test_files_of_two_polarisations_stack_in_their_order(tmp_path, gray):
    for name, pixels in (("vv", gray), ("vh", gray // 2)):
        write_image(tmp_path / f"{name}.tif", pixels)
    image = read_image([tmp_path / "vv.tif", tmp_path / "vh.tif"])
    assert image.shape == (40, 60, 2)
    assert np.array_equal(image[:, :, 0], gray)
    assert np.array_equal(image[:, :, 1], gray // 2)


@pytest.mark.parametrize("other", [np.zeros((40, 61), np.uint8), np.zeros((40, 60), np.uint16)])
def test_polarisations_of_unequal_size_or_dtype_are_refused(tmp_path, gray, other):
    write_image(tmp_path / "vv.tif", gray)
    write_image(tmp_path / "vh.tif", other)
    with pytest.raises(DatasetError, match=r"vh\.tif is 40 x .* but .*vv\.tif is 40 x 60 uint8"):
        read_image([tmp_path / "vv.tif", tmp_path / "vh.tif"])


def test_a_name_with_a_list_in_braces_is_one_image_of_several_files(tmp_path, gray):
    for name, factor in (("vv", 1), ("vh", 2)):
        write_image(tmp_path / f"chip_{name}.tif", (gray // 4 * factor).astype(np.int16))
    together = tmp_path / "chip_{vv,vh}.tif"
    assert np.array_equal(
        read_image(together),
        read_image([tmp_path / "chip_vv.tif", tmp_path / "chip_vh.tif"]),
    )
    assert image_size(together) == (*gray.shape[:2], 2)
    (tmp_path / "chip_vh.tif").unlink()
    with pytest.raises(DatasetError, match=r"chip_vh.tif is missing"):
        read_image(together)


def test_braces_vary_together_and_must_be_equally_long():
    names = polarisation_files("{VV,VH}/s1-{vv,vh}-{001,002}.tif")
    assert [str(each) for each in names] == ["VV/s1-vv-001.tif", "VH/s1-vh-002.tif"]
    with pytest.raises(DatasetError, match="equally long"):
        polarisation_files("{VV,VH}/s1-{vv}-{1,2,3}.tif")


def test_polarisations_turn_the_annotated_file_into_all():
    assert with_polarisations("a/VV_dB.tif", ["VV", "VH"]) == "a/{VV,VH}_dB.tif"
    assert with_polarisations("a_{VV,VH}.tif", ["VV", "VH"]) == "a_{VV,VH}.tif"
    with pytest.raises(DatasetError, match=r"a_HH.tif does not hold 'VV'"):
        with_polarisations("a_HH.tif", ["VV", "VH"])


def test_each_polarisation_has_the_nodata_of_its_file(tmp_path):
    place = {"transform": (10, 0, 0, 0, -10, 0), "crs": "EPSG:32611", "tags": {}}
    pixels = np.array([[0, 7, 9]], np.uint8)
    for name, nodata in (("vv", 0.0), ("vh", 9.0)):
        write_geotiff(tmp_path / f"{name}.tif", pixels, nodata=nodata, **place)
    image, valid = read_pixels(tmp_path / "{vv,vh}.tif")
    assert image.tolist() == [[[0, 0], [7, 7], [9, 9]]]
    assert valid.tolist() == [[False, True, False]]


def test_no_files_at_all_are_refused():
    with pytest.raises(DatasetError, match="one per polarisation"):
        read_image([])


@pytest.mark.parametrize("name", ["gray.png", "colour.png", "gray.jpg", "colour.jpg", "two.tif"])
def test_the_size_in_the_header_is_the_size_of_the_pixels(tmp_path, gray, colour, name):
    pixels = {"gray": gray, "colour": colour, "two": colour[:, :, :2]}[name.partition(".")[0]]
    path = tmp_path / name
    if name.endswith("jpg"):
        encode(path, pixels)
    else:
        write_image(path, pixels)
    assert image_size(path) == read_image(path).shape


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_a_file_cut_short_is_refused_by_name(tmp_path, gray, name, share):
    path = encode(tmp_path / name, gray)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DatasetError, match=name):
        read_image(path)


def test_a_progressive_jpeg_cut_between_two_scans_is_refused(tmp_path, gray):
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), gray, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    whole = path.read_bytes()
    assert whole.count(b"\xff\xda") > 1
    path.write_bytes(whole[: whole.rfind(b"\xff\xda")])
    with pytest.raises(DatasetError, match="cut short"):
        read_image(path)


def test_a_jpeg_followed_by_padding_is_whole(tmp_path, gray):
    path = encode(tmp_path / "a.jpg", gray)
    path.write_bytes(path.read_bytes() + bytes(64))
    assert read_image(path).shape == (40, 60, 1)


def test_one_flipped_bit_in_a_png_is_noticed(tmp_path, gray):
    path = encode(tmp_path / "a.png", gray)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DatasetError, match="checksum"):
        read_image(path)


@pytest.mark.parametrize("look", [read_image, image_size, read_pixels])
def test_missing_empty_and_unknown_files_are_named(tmp_path, look):
    (tmp_path / "empty.png").touch()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DatasetError, match=r"gone\.tif is missing"):
        look(tmp_path / "gone.tif")
    with pytest.raises(DatasetError, match=r"empty\.png is empty"):
        look(tmp_path / "empty.png")
    with pytest.raises(DatasetError, match=r"notes\.txt must end in one of \.png"):
        look(tmp_path / "notes.txt")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
@pytest.mark.parametrize("look", [read_image, image_size])
def test_a_file_that_is_something_else_is_refused(tmp_path, name, look):
    (tmp_path / name).write_bytes(b"this is plain text, long enough to hold any header")
    with pytest.raises(DatasetError, match="no readable header"):
        look(tmp_path / name)


def test_complex_pixels_ask_for_the_amplitude(tmp_path):
    make_tiff(tmp_path / "slc.tif", "complex64")
    with pytest.raises(DatasetError, match="take the amplitude"):
        read_image(tmp_path / "slc.tif")


def test_a_dtype_that_nobody_uses_is_refused_with_the_list(tmp_path):
    make_tiff(tmp_path / "a.tif", "uint32")
    with pytest.raises(DatasetError, match="stores uint32; accepted are uint8, uint16"):
        read_image(tmp_path / "a.tif")


def test_a_geotiff_keeps_where_it_is(tmp_path, gray):
    transform = (10.0, 0.0, 380000.0, 0.0, -10.0, 3735000.0)
    pixels = np.tile(gray, (10, 8))
    path = tmp_path / "scene.tif"
    write_geotiff(path, pixels, transform=transform, crs="EPSG:32611", nodata=0, tags={"seed": "3"})
    image, valid = read_pixels(path)
    assert np.array_equal(image[:, :, 0], pixels)
    assert np.array_equal(valid, pixels != 0)
    with rasterio.open(path) as raster:
        assert tuple(raster.transform)[:6] == transform
        assert raster.crs.to_epsg() == 32611
        assert raster.block_shapes == [(256, 256)]
        assert raster.compression.name == "deflate"
        assert raster.tags()["seed"] == "3"


def test_all_is_data_where_nothing_is_declared(tmp_path, gray):
    gray[0, :2] = 0, 255
    for name in ("a.png", "a.tif"):
        write_image(tmp_path / name, gray)
        assert read_pixels(tmp_path / name)[1].all()
        assert np.array_equal(read_pixels(tmp_path / name, nodata=255)[1], gray != 255)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("a.png", np.zeros((4, 4), np.float32)),
        ("a.png", np.zeros((4, 4, 2), np.uint8)),
        ("a.tif", np.zeros((4, 4), np.complex64)),
        ("a.jpg", np.zeros((4, 4), np.uint8)),
        ("a.png", np.zeros(4, np.uint8)),
    ],
)
def test_what_a_format_cannot_hold_is_not_written(tmp_path, name, pixels):
    with pytest.raises(ValueError, match=r"must|cannot"):
        write_image(tmp_path / name, pixels)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, gray, name):
    write_image(tmp_path / name, gray)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_image(tmp_path / name, gray // 2)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert np.array_equal(read_image(tmp_path / name)[:, :, 0], gray)


# --- Kinds that are refused by name --------------------------------------------------------------


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_jpeg_to_be_shown_turned_is_refused(tmp_path, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.new("L", (40, 30), 90).save(tmp_path / "a.jpg", exif=exif)
    with pytest.raises(DatasetError, match=rf"a\.jpg is to be shown turned .*{orientation}\)"):
        read_image(tmp_path / "a.jpg")
    exif[0x0112] = 1
    PIL.Image.new("L", (40, 30), 90).save(tmp_path / "b.jpg", exif=exif)
    assert read_image(tmp_path / "b.jpg").shape == (30, 40, 1)


def test_a_tiff_of_single_bits_is_refused(tmp_path):
    PIL.Image.new("1", (40, 30), 1).save(tmp_path / "a.tif")
    with pytest.raises(DatasetError, match=r"a\.tif stores 1 bit a pixel"):
        read_image(tmp_path / "a.tif")


def test_a_tiff_with_a_palette_is_refused(tmp_path):
    image = PIL.Image.new("P", (40, 30), 3)
    image.putpalette([n for level in range(256) for n in (level, 0, 255 - level)])
    image.save(tmp_path / "a.tif")
    with pytest.raises(DatasetError, match=r"a\.tif stores places in a table of colours"):
        read_image(tmp_path / "a.tif")


def test_a_file_of_another_driver_is_no_tiff(tmp_path):
    write_image(tmp_path / "secret.tif", np.full((4, 5), 7, np.uint8))
    (tmp_path / "a.tif").write_text(
        '<VRTDataset rasterXSize="5" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1">'
        f"<SimpleSource><SourceFilename>{tmp_path / 'secret.tif'}</SourceFilename>"
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    for read in (read_image, image_size):
        with pytest.raises(DatasetError, match=r"a\.tif has no readable header"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.bmp", "sub/b.JP2", "c.webp"])
def test_images_of_other_kinds_are_refused_by_name_and_not_passed_over(tmp_path, name):
    write_image(tmp_path / "good.png", np.zeros((4, 5), np.uint8))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DatasetError, match=rf"{name} is an image that cannot be read"):
        files_in(tmp_path, SUFFIXES)
    assert files_in(tmp_path, (".txt",)) == []
