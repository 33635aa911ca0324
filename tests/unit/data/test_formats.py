"""The same boxes in Pascal VOC, YOLO, DOTA and COCO read as the same dataset.

The format is told from what is there. Whatever cannot be read is left out and named with file and
line, and what was read is written as COCO without loss.
"""

import math
import re

import pytest

from sar_experiments.config import Format
from sar_experiments.data.coco import read_coco, write_coco
from sar_experiments.data.formats import format_of, read_dataset
from sar_experiments.data.images import write_image
from sar_experiments.errors import DatasetError

HEIGHT, WIDTH = 40, 80
SCENES = r"(?P<scene>.+?)(_\d+){2,}"

VOC = """<annotation>
  <size><width>80</width><height>40</height><depth>1</depth></size>
  <object>
    <name>ship</name><difficult>{difficult}</difficult>
    <bndbox><xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>15</ymax></bndbox>
  </object>
</annotation>
"""
YOLO = "0 0.25 0.25 0.25 0.25\n"
DOTA = "imagesource:GF3\ngsd:1.0\n10 5 30 5 30 15 10 15 ship {difficult}\n"
BOX = [10, 5, 30, 15]
"""What all of them mean."""


@pytest.fixture
def folder(tmp_path, rng):
    """Images a_0_0.png, a_0_1.png and b.png in images/, and nothing else."""
    for name in ("a_0_0", "a_0_1", "b"):
        pixels = rng.integers(0, 256, (HEIGHT, WIDTH), dtype="uint8")
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        write_image(path, pixels)
    return tmp_path


@pytest.fixture
def label(folder):
    """Write label files below the folder: name -> text or bytes."""

    def write(**texts):
        for name, text in texts.items():
            path = folder / "labels" / name.replace("__", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder / "labels"

    return write


@pytest.fixture
def read(folder):
    def read_labels(
        annotations=folder / "labels", images=folder / "images", classes=None, **options
    ):
        options = {"name": "train", "scene_pattern": SCENES, **options}
        return read_dataset(annotations, images, classes=classes, **options)

    return read_labels


@pytest.mark.parametrize(
    ("suffix", "text", "form"),
    [
        ("xml", VOC.format(difficult=0), Format.voc),
        ("txt", "\r\n" + YOLO.replace("\n", "\r\n"), Format.yolo),
        ("txt", "\ufeff" + DOTA.format(difficult=0), Format.dota),
        ("txt", "10 5 30 5 30 15 10 15 ship", Format.dota),
        ("txt", "0 0.125 0.125 0.375 0.125 0.375 0.375 0.125 0.375", Format.yolo),
    ],
)
def test_each_format_is_told_and_reads_the_same_box(label, read, suffix, text, form):
    labels = label(**{f"a_0_0__{suffix}": text, f"b__{suffix}": text})
    assert format_of(labels) is form
    dataset = read(classes=["ship"])
    first, last = dataset.samples[0], dataset.samples[-1]
    assert first["annotations"][0]["bbox"] == pytest.approx(BOX)
    assert first["annotations"][0]["area"] == pytest.approx(200)
    assert (first["height"], first["width"], first["scene"]) == (HEIGHT, WIDTH, "a")
    assert (last["annotations"][0]["id"], last["scene"]) == (2, "b")
    assert not [fault for fault in dataset.faults if fault.severity == "error"]


def test_an_empty_label_file_is_an_image_without_objects(label, read):
    label(a_0_0__txt="", b__txt=DOTA.format(difficult=0))
    assert [len(s["annotations"]) for s in read().samples] == [0, 1]
    assert read(form=Format.yolo, classes=["x"]).samples[0]["annotations"] == []


def test_without_classes_those_that_occur_are_taken_by_alphabet(label, read):
    label(a_0_0__txt="1 1 9 1 9 9 1 9 ship 0\n1 1 9 1 9 9 1 9 large vehicle 0\n")
    assert read().classes == ("large vehicle", "ship")


def test_a_class_that_is_not_listed_is_named_with_its_line(label, read):
    label(a_0_0__txt="1 1 9 1 9 9 1 9 ship 0\n1 1 9 1 9 9 1 9 shp 0\n")
    dataset = read(classes=["ship"])
    (fault,) = dataset.faults
    assert "a_0_0.txt, line 2: is of class shp" in fault.sentence
    assert "did you mean 'ship'?" in fault.sentence
    assert dataset.class_counts() == {"ship": 1}


@pytest.mark.parametrize(
    ("suffix", "text"), [("xml", VOC.format(difficult=1)), ("txt", DOTA.format(difficult=1))]
)
def test_a_difficult_object_keeps_its_flag_through_coco(label, read, folder, suffix, text):
    label(**{f"a_0_0__{suffix}": text})
    dataset = read()
    assert dataset.samples[0]["annotations"][0]["difficult"] == 1
    write_coco(dataset, folder / "train.json")
    again = read_coco(
        folder / "train.json", folder / "images", name="x", classes=None, scene_pattern=""
    )
    assert again.samples == dataset.samples
    assert again.classes == dataset.classes


def test_a_turned_box_keeps_its_corners_and_their_area(label, read):
    label(a_0_0__txt="20 5 30 15 20 25 10 15 ship 0")
    (annotation,) = read().samples[0]["annotations"]
    assert annotation["bbox"] == [10, 5, 30, 25]
    assert annotation["segmentation"] == [[20, 5, 30, 15, 20, 25, 10, 15]]
    assert annotation["area"] == pytest.approx(200)


def test_a_turned_voc_box_becomes_its_corners(label, read):
    turned = (
        f"<a><object><name>ship</name><robndbox><cx>20</cx><cy>15</cy><w>{math.sqrt(200)}</w>"
        f"<h>{math.sqrt(200)}</h><angle>{math.pi / 4}</angle></robndbox></object></a>"
    )
    label(a_0_0__xml=turned)
    sample = read().samples[0]
    assert sample["annotations"][0]["bbox"] == pytest.approx([10, 5, 30, 25])
    assert sample["annotations"][0]["area"] == pytest.approx(200)
    assert (sample["height"], sample["width"]) == (HEIGHT, WIDTH)  # from the image's header


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a_0_0__txt", "1 1 9 1 9 9 1 9\n", "a_0_0.txt, line 1: '1 1 9 1 9 9 1 9' names no class"),
        ("a_0_0__txt", "\n\n1 1 9 1 x 9 1 9 ship\n", "a_0_0.txt, line 3: '1 1 9 1 x"),
        ("a_0_0__txt", b"1 1 9 1 9 9 1 9 ship\n\xff\xfe", "a_0_0.txt, line 2: is no UTF-8 text"),
        ("c__txt", "1 1 9 1 9 9 1 9 ship\n", "c.txt has no image of its name in"),
    ],
)
def test_what_is_broken_in_dota_is_named_with_its_line(label, read, name, text, sentence):
    label(b__txt=DOTA.format(difficult=0), **{name: text})
    dataset = read(form=Format.dota)
    (fault,) = dataset.faults
    assert sentence in fault.sentence
    assert fault.severity == "error"
    assert dataset.class_counts() == {"ship": 1}


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a_0_0__txt", "0 0.5 0.5 0.1\n", "a_0_0.txt, line 1: '0 0.5 0.5 0.1': 4 words"),
        ("a_0_0__txt", "\n0 0.5 0.5 0.1 b\n", "line 2: '0 0.5 0.5 0.1 b': could not convert"),
        ("a_0_0__txt", "2 .5 .5 .1 .1\n", "class 2 is none of the 2: 0 ship, 1 platform"),
        ("a_0_0__txt", "-1 .5 .5 .1 .1\n", "class -1 is none"),
        ("c__txt", YOLO, "c.txt has no image of its name"),
    ],
)
def test_what_is_broken_in_yolo_is_named_with_its_line(label, read, name, text, sentence):
    label(**{"a_0_0__txt": YOLO, "a_0_1__txt": YOLO, "b__txt": YOLO, name: text})
    (fault,) = read(classes=["ship", "platform"], form=Format.yolo).faults
    assert sentence in fault.sentence
    assert fault.severity == "error"


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a_0_0__xml", "<annotation>\n<object>", "a_0_0.xml, line 2: is no whole XML file"),
        ("a_0_0__xml", "", "a_0_0.xml, line 1: is no whole XML file: no element found"),
        ("a_0_0__xml", "<a>\n<object>\n</object></a>", "a_0_0.xml, line 2: the object has no name"),
        (
            "a_0_0__xml",
            VOC.format(difficult=0).replace("<xmax>30</xmax>", ""),
            "a_0_0.xml, line 3: the object has bndbox/xmax=None",
        ),
        ("c__xml", VOC.format(difficult=0), "c.xml has no image of its name"),
    ],
)
def test_what_is_broken_in_voc_is_named_with_its_line(label, read, name, text, sentence):
    label(**{"b__xml": VOC.format(difficult=0), name: text})
    (fault,) = read().faults
    assert sentence in fault.sentence


def test_an_image_that_yolo_has_no_label_file_for_has_no_objects_and_is_a_warning(label, read):
    label(a_0_0__txt=YOLO, b__txt=YOLO)
    dataset = read(classes=["ship"])
    (fault,) = dataset.faults
    assert (fault.code, fault.severity) == ("label file missing", "warning")
    assert [len(s["annotations"]) for s in dataset.samples] == [1, 0, 1]


def test_a_broken_image_header_is_named(label, read, folder):
    label(a_0_0__txt=YOLO, a_0_1__txt=YOLO, b__txt=YOLO)
    (folder / "images" / "b.png").write_bytes(b"no image")
    (fault,) = read(classes=["ship"]).faults
    assert fault.code == "image broken"
    assert "b.png has no readable header" in fault.sentence


@pytest.mark.parametrize("file", ["labels/classes.txt", "classes.txt", "data.yaml"])
def test_yolos_class_numbers_are_named_by_a_file_near_them(label, read, folder, file):
    label(a_0_0__txt="1 .5 .5 .2 .2")
    named = "names: [ship, platform]" if file == "data.yaml" else "ship\nplatform\n"
    (folder / file).write_text(named)
    assert read().classes == ("ship", "platform")
    again = read(classes=["platform", "ship"])
    assert again.class_counts() == {"platform": 1, "ship": 0}


def test_yolos_class_numbers_without_names_are_refused(label, read):
    label(a_0_0__txt=YOLO)
    with pytest.raises(DatasetError, match=r"class numbers and nothing names them.*classes\.txt"):
        read()


@pytest.mark.parametrize("train", ["images/train", "../images/train", "[images/train]", "list.txt"])
def test_a_data_yaml_names_classes_and_images(folder, read, train):
    for kind in ("images", "labels"):
        (folder / kind / "train").mkdir(parents=True)
    (folder / "images" / "a_0_0.png").rename(folder / "images" / "train" / "x.png")
    (folder / "labels" / "train" / "x.txt").write_text("1 .25 .25 .25 .25")
    (folder / "list.txt").write_text("./images/train/x.png\n")
    yaml = folder / "data.yaml"
    yaml.write_text(f"path: /on/another/machine\ntrain: {train}\nnames: {{0: ship, 1: platform}}")
    dataset = read(yaml, None)
    assert dataset.classes == ("ship", "platform")
    (sample,) = dataset.samples
    assert sample["file_name"].endswith("/images/train/x.png")
    assert sample["annotations"][0]["bbox"] == pytest.approx(BOX)
    assert not dataset.faults
    with pytest.raises(DatasetError, match=r"has no key 'val'; set usecase\.val\.images=DIR"):
        read(yaml, None, name="val")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", r"cannot be read as YAML.*line 1"),
        ("train: images\n", "needs names"),
        ("train: nowhere\nnames: [ship]", "nowhere does not exist below"),
        ("train: data.yaml\nnames: [ship]", "neither a folder nor a list"),
        ("names: [ship, ship]", "needs names"),
    ],
)
def test_a_broken_data_yaml_is_refused(folder, read, text, message):
    (folder / "data.yaml").write_text(text)
    with pytest.raises(DatasetError, match=f"(?s)data.yaml.*{message}"):
        read(folder / "data.yaml", None)


def test_a_voc_list_picks_its_images(folder, read):
    for name in ("a_0_0", "b"):
        path = folder / "Annotations" / f"{name}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(VOC.format(difficult=0))
    listed = folder / "ImageSets" / "Main" / "train.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("b\nmissing\n")
    dataset = read(listed)
    assert [sample["scene"] for sample in dataset.samples] == ["b"]
    assert "missing.xml cannot be read: No such file" in dataset.faults[0].sentence


def test_two_images_of_one_name_are_named(label, read, folder):
    label(b__xml=VOC.format(difficult=0), a_0_0__xml=VOC.format(difficult=0))
    (folder / "images" / "b.jpg").write_bytes(b"")
    assert "b.xml may belong to b.jpg, b.png" in read().faults[0].sentence


def test_subfolders_of_images_and_labels_belong_together(folder, read):
    for scene in ("one", "two"):
        (folder / "images" / scene).mkdir()
        (folder / "labels" / scene).mkdir(parents=True)
        content = (folder / "images" / "b.png").read_bytes()
        (folder / "images" / scene / "x.png").write_bytes(content)
        (folder / "labels" / scene / "x.xml").write_text(VOC.format(difficult=0))
    dataset = read()
    assert [s["scene"] for s in dataset.samples] == ["one/x", "two/x"]
    assert not dataset.faults


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f / "boxes.parquet", r"boxes\.parquet is in no known format; accepted are"),
        (lambda f: f / "images", "holds no label files"),
    ],
)
def test_what_is_in_no_known_format_is_refused(folder, read, make, message):
    with pytest.raises(DatasetError, match=message):
        read(make(folder))


def test_label_files_that_tell_nothing_are_refused(label, read):
    label(a_0_0__txt="", b__txt="\n")
    with pytest.raises(DatasetError, match=r"do not tell their format; set usecase\.format"):
        read()


def test_no_usable_image_is_refused_with_the_first_fault(label, read):
    label(c__xml=VOC.format(difficult=0))
    with pytest.raises(DatasetError, match=r"no image that can be used.*c\.xml has no image"):
        read()


HRSC = """<HRSC_Image><Img_SizeWidth>80</Img_SizeWidth><Img_SizeHeight>40</Img_SizeHeight>
<HRSC_Objects><HRSC_Object><Class_ID>ship</Class_ID><difficult>0</difficult>
<box_xmin>10</box_xmin><box_ymin>5</box_ymin><box_xmax>30</box_xmax><box_ymax>15</box_ymax>
{turned}</HRSC_Object></HRSC_Objects></HRSC_Image>"""
HRSC_TURNED = """<mbox_cx>20</mbox_cx><mbox_cy>10</mbox_cy><mbox_w>10</mbox_w><mbox_h>20</mbox_h>
<mbox_ang>1.5707963268</mbox_ang>"""
SSDD = """<annotation><object><name>ship</name>
<bndbox><xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>15</ymax></bndbox><rotated_bndbox>
<rotated_bbox_cx>20</rotated_bbox_cx><rotated_bbox_cy>10</rotated_bbox_cy>
<rotated_bbox_w>10</rotated_bbox_w><rotated_bbox_h>20</rotated_bbox_h>
<rotated_bbox_theta>90</rotated_bbox_theta></rotated_bndbox></object></annotation>"""
FAIR1M = """<annotation><objects><object><possibleresult><name>ship</name></possibleresult><points>
<point>10,5</point><point>30,5</point><point>30,15</point><point>10,15</point><point>10,5</point>
</points></object></objects></annotation>"""
CVAT = """<annotations><version>1.1</version><meta/>
<image id="0" name="sub\\b.png" width="80" height="40">
{}
</image><image id="1" name="a_0_0.png" width="80" height="40"></image></annotations>"""
CVAT_BOX = '<box label="ship" xtl="10" ytl="5" xbr="30" ybr="15"{}><attribute name="x"/></box>'


@pytest.mark.parametrize(
    "text",
    [
        HRSC.format(turned=""),
        HRSC.format(turned=HRSC_TURNED),
        SSDD,
        FAIR1M,
        VOC.format(difficult=0).replace("<annotation>", '<annotation xmlns="http://a.b/c">'),
        VOC.format(difficult=0).replace("<size>", "<!-- ").replace("</size>", " -->"),
        '<?xml version="1.0" encoding="GBK"?>' + VOC.format(difficult=0),
    ],
)
def test_each_dialect_of_voc_means_the_same_box(label, read, text):
    label(b__xml=text)
    (sample,) = read(classes=["ship"]).samples
    (annotation,) = sample["annotations"]
    assert annotation["bbox"] == pytest.approx(BOX, abs=1e-6)
    assert (sample["height"], sample["width"]) == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    "shape",
    [
        CVAT_BOX.format(""),
        '<polygon label="ship" points="10,5;30,5;30,15;10,15"/>',
        '<box label="ship" xtl="15" ytl="0" xbr="25" ybr="20" rotation="90.0"/>',
    ],
)
def test_one_cvat_file_describes_many_images(label, read, shape):
    labels = label(annotations__xml=CVAT.format(shape))
    for given in (labels, labels / "annotations.xml"):
        dataset = read(given)
        full, empty = dataset.samples
        assert full["annotations"][0]["bbox"] == pytest.approx(BOX)
        assert (full["scene"], empty["annotations"], dataset.faults) == ("b", [], ())


def test_a_class_name_in_a_declared_encoding_is_read(label, read):
    text = '<?xml version="1.0" encoding="gbk"?>' + VOC.format(difficult=0).replace("ship", "船")
    label(b__xml=text.encode("gbk"))
    assert read().classes == ("船",)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("<GRD>\n<ship><Ship_Type>Cargo</Ship_Type></ship></GRD>", "the root element GRD"),
        (
            "<annotation>\n<vessel><xmin>1</xmin></vessel></annotation>",
            "line 2: holds no object but the unknown element vessel",
        ),
        ("<HRSC_Image></HRSC_Image>", "without the element HRSC_Objects"),
        ("<annotations><track id='0'/></annotations>", "the root element annotations"),
    ],
)
def test_an_unknown_structure_is_an_error_and_no_empty_image(label, read, text, what):
    label(a_0_0__xml=VOC.format(difficult=0), b__xml=text)
    dataset = read()
    (fault,) = dataset.faults
    assert (fault.code, fault.severity) == ("structure unknown", "error")
    assert what in fault.sentence
    assert "looked for: object elements" in fault.sentence
    assert len(dataset.samples) == 1


@pytest.mark.parametrize(
    "text",
    [
        "<annotation><filename>b.png</filename><sensor>GF-3</sensor></annotation>",
        "<annotation><source><database>x</database></source><segmented>0</segmented></annotation>",
        "<HRSC_Image><HRSC_Objects/></HRSC_Image>",
    ],
)
def test_a_known_structure_without_objects_is_an_empty_image(label, read, text):
    label(b__xml=text)
    dataset = read(classes=["ship"])
    assert (len(dataset.samples), dataset.samples[0]["annotations"]) == (1, [])
    assert not dataset.faults


def test_what_cvat_has_no_box_for_is_named_with_its_line(label, read):
    label(annotations__xml=CVAT.format('<polyline label="ship" points="1,2;3,4"/>'))
    (fault,) = read(classes=["ship"]).faults
    assert "annotations.xml, line 3: the object is a polyline" in fault.sentence


def test_class_names_that_are_no_utf8_are_refused_with_their_line(label, read, folder):
    label(a_0_0__txt=YOLO)
    (folder / "labels" / "classes.txt").write_bytes("ok\n船\n".encode("gbk"))
    with pytest.raises(DatasetError, match=r"classes\.txt, line 2: is no UTF-8 text; save it as"):
        read()


@pytest.mark.parametrize(
    ("form", "text", "sentence"),
    [
        (
            Format.yolo,
            "1 1 9 1 9 9 1 9 ship 0",
            "line 1: .* looks like DOTA .* usecase.format=dota",
        ),
        (Format.yolo, "10 5 30 5 30 15 10 15 0 1", "looks like DOTA .* usecase.format=dota"),
        (Format.yolo, "0 10 5 30 5 30 15 10 15", "line 1: .*: 30 is no share of the image"),
        (Format.yolo, "0 nan 0.5 0.1 0.1", "line 1: .*numbers must be finite"),
        (Format.dota, "0 0.1 0.1 0.3 0.1 0.3 0.3 0.1 0.3", "line 1: .* looks like YOLO .*=yolo"),
        (Format.dota, "0 0.5 0.5 0.1 0.1", "line 1: .* looks like YOLO"),
        (Format.dota, "inf 5 30 5 30 15 10 15 ship 0", "line 1: .*numbers must be finite"),
    ],
)
def test_a_file_of_another_format_is_named_with_the_key_to_set(label, read, form, text, sentence):
    label(b__txt=text)
    faults = read(form=form, classes=["ship"]).faults
    (fault,) = [each for each in faults if each.severity == "error"]
    assert re.search(sentence, fault.sentence)


def test_dota_with_numbers_for_classes_is_told_from_yolo(label, read):
    assert format_of(label(b__txt="10 5 30 5 30 15 10 15 7 0")) is Format.dota
    dataset = read()
    assert dataset.classes == ("7",)
    assert dataset.samples[0]["annotations"][0]["bbox"] == BOX


def test_labels_beside_images_are_read_with_and_without_a_data_yaml(folder, read):
    (folder / "images" / "b.txt").write_text(YOLO)
    (folder / "data.yaml").write_text("names: [ship]\ntrain: images\n")
    for given in ((folder / "images", folder / "images"), (folder / "data.yaml", None)):
        last = read(*given, classes=["ship"]).samples[-1]
        assert last["annotations"][0]["bbox"] == pytest.approx(BOX)


def test_a_label_file_in_another_subfolder_belongs_to_the_only_image_of_its_name(folder, read):
    (folder / "labels" / "train").mkdir(parents=True)
    (folder / "labels" / "train" / "b.txt").write_text(YOLO)
    dataset = read(classes=["ship"])
    assert len(dataset.samples[-1]["annotations"]) == 1
    assert not [fault for fault in dataset.faults if fault.severity == "error"]
