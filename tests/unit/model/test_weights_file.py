"""Whatever a weights file asks for, nothing in it is run; what the zoos wrote is read."""

import io
import itertools
import json
import pickle
import re
import tarfile
import zipfile
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch

from sar_experiments import run_folder
from sar_experiments.errors import CheckpointError
from sar_experiments.export.session import open_onnx
from sar_experiments.model import weights
from sar_experiments.model.weights_file import read_weights_file
from sar_experiments.tasks import detectors, evaluate, export, pretrained, statistics
from sar_experiments.tasks import train as train_task
from sar_experiments.train.loop import Learner, train


class Touch:
    """Once unpickled as Python does, ``marker`` exists."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


def torch_zip(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def torch_before_1_6(content):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def torch_before_0_4(content):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("sys_info", "storages", "tensors", "pickle"):
            part = pickle.dumps(content, 2)
            entry = tarfile.TarInfo(name)
            entry.size = len(part)
            archive.addfile(entry, io.BytesIO(part))
    return file.getvalue()


def numpy_array(content):
    file = io.BytesIO()
    np.save(file, np.array(content, object), allow_pickle=True)
    return file.getvalue()


def numpy_archive(content):
    file = io.BytesIO()
    np.savez(file, model=np.array(content, object))
    return file.getvalue()


def zip_of_a_pickle(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(content))
    return file.getvalue()


LAYOUTS = {
    "torch": torch_zip,
    "torch before 1.6": torch_before_1_6,
    "torch before 0.4": torch_before_0_4,
    **{f"pickle {n}": lambda content, n=n: pickle.dumps(content, n) for n in range(6)},
    "npy": numpy_array,
    "npz": numpy_archive,
    "zip": zip_of_a_pickle,
}
SUFFIXES = (".pkl", ".pth", ".pt", ".pyth", ".bin", ".ckpt", ".npy", ".npz", ".onnx", ".tar", "")


@pytest.fixture(params=LAYOUTS)
def layout(request):
    """Content -> bytes of a file, in each layout that weights come in or pretend to."""
    return LAYOUTS[request.param]


@pytest.fixture
def touch(tmp_path):
    """What would create ``tmp_path / "touched"``; the test ends with a look whether it did."""
    marker = tmp_path / "touched"
    yield Touch(marker)
    assert not marker.exists()


ONE_SENTENCE = r"[^\n]*(cannot be read as a checkpoint: |holds a )[^\n]*"


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("place", ["alone", "model", "beside", "key", "caffe2", "after a tensor"])
def test_no_layout_under_no_name_runs_anything(tmp_path, touch, layout, suffix, place):
    weight = torch.ones(2)
    content = {
        "alone": touch,
        "model": {"model": touch, "__author__": "a"},
        "beside": {"model": {"w": weight}, "trainer": {"state": [touch]}},
        "key": {"model": {"w": weight}, (1, touch): 1},
        "caffe2": {"blobs": {"conv1_w": touch}},
        "after a tensor": OrderedDict(first=weight, second=touch),
    }[place]
    path = tmp_path / f"model{suffix}"
    path.write_bytes(layout(content))
    with pytest.raises(CheckpointError, match=re.escape(str(path))) as refusal:
        read_weights_file(path)
    assert re.fullmatch(ONE_SENTENCE, str(refusal.value))
    assert "weights_only" not in str(refusal.value)


class Calls:
    """A pickle that calls what it is told."""

    def __init__(self, what, *arguments):
        self.call = (what, arguments)

    def __reduce__(self):
        return self.call


def forged_dtype():
    """An object array that says of itself that it holds numbers: NumPy would take it for one."""
    dtype = Calls(np.dtype, "O8", False, True)
    return {"model": {"w": Calls(np.ndarray, (1,), dtype)}}


@pytest.mark.parametrize(
    ("content", "asked_for"),
    [
        (lambda: {"model": Calls(eval, "1 + 1")}, r"__builtin__\.eval"),
        (lambda: {"model": Calls(getattr, [], "append")}, r"__builtin__\.getattr"),
        (lambda: {"model": Calls(np.load, "x.npy")}, r"numpy\.load"),
        (lambda: {"model": Calls(torch.storage._load_from_bytes, b"")}, r"_load_from_bytes"),
        (lambda: {"model": np.array([{}], object)}, r"numpy\.dtype\.O8"),
        (forged_dtype, r"numpy\.dtype\.O8"),
    ],
)
def test_the_refusal_names_what_a_pickle_asks_for(tmp_path, content, asked_for):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(content(), 2))
    with pytest.raises(CheckpointError, match=rf"asks for .*{asked_for}, and nothing in it is run"):
        read_weights_file(path)


@pytest.mark.parametrize("length", [8, 7, 9])
def test_an_array_must_be_as_long_as_it_says(tmp_path, length):
    maker, arguments, state = np.zeros(2, np.float32).__reduce__()
    state = (*state[:4], b"\0" * length)

    class Array:
        def __reduce__(self):
            return maker, arguments, state

    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": {"w": Array()}}, 2))
    if length == 8:
        assert read_weights_file(path)["model"]["w"].tolist() == [0, 0]
    else:
        with pytest.raises(CheckpointError, match=f"{length} bytes do not fill"):
            read_weights_file(path)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_arrays_of_a_zoos_pickle_become_tensors_of_the_same_values(tmp_path, rng, protocol):
    arrays = {
        "weight": rng.random((2, 3, 4), "float32"),
        "half": rng.random(3).astype(np.float16),
        "count": np.array(7, np.int64),
        "columns first": np.asfortranarray(rng.random((3, 5))),
        "big endian": np.arange(4, dtype=">f4"),
        "flags": np.array([True, False]),
        "nothing": np.zeros((0, 4), np.float32),
        "scalar": np.float32(0.5),
    }
    path = tmp_path / "model_final_280758.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2"}, protocol))
    content = read_weights_file(path)
    assert content["__author__"] == "Detectron2"
    found = content["model"]
    assert found.pop("scalar") == arrays.pop("scalar")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(found[name].numpy(), array), name
        assert found[name].shape == array.shape


def test_a_pickle_of_python_2_is_read(tmp_path):
    """Text where bytes are, classes of old modules; by hand, as Python 3 writes no such."""
    pickled = b"\x80\x02}U\x05blobs}U\x07conv1_w"
    pickled += b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    pickled += b"(K\x01(K\x02tcnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xff"
    pickled += b"J\xff\xff\xff\xffK\x00tb\x89U\x08" + np.array([1, -2], "<f4").tobytes() + b"tbss."
    assert np.array_equal(pickle.loads(pickled, encoding="latin1")["blobs"]["conv1_w"], [1, -2])
    path = tmp_path / "model.pkl"
    path.write_bytes(pickled)
    assert read_weights_file(path)["blobs"]["conv1_w"].tolist() == [1, -2]


@pytest.mark.parametrize("write", [torch_zip, torch_before_1_6])
def test_tensors_and_plain_values_of_pytorch_are_read(tmp_path, write):
    state = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).state_dict()
    path = tmp_path / "whatever.name"
    path.write_bytes(write({"model": state, "trainer": {"iteration": 3, "best": 0.5, "why": ""}}))
    content = read_weights_file(path)
    assert content["trainer"] == {"iteration": 3, "best": 0.5, "why": ""}
    assert all(torch.equal(content["model"][name], value) for name, value in state.items())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"# Notes\n", "no file of PyTorch"),
        (b"\x93NUMPY\x01\x00", "a NumPy array"),
        (b"\x08\x09\x12\x07pytorch", "runtime=onnx"),
        (b"PK\x03\x04 cut", "it is cut short"),
        (torch_zip({"model": {}})[:-30], "it is cut short"),
        (LAYOUTS["npz"]([1]), r"without PyTorch's data\.pkl"),
        (LAYOUTS["torch before 0.4"]([1]), "a tar archive"),
        (pickle.dumps({"model": {"w": np.zeros(9)}}, 2)[:-40], "."),
        (pickle.dumps([1]), "holds a list"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path, content, why):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"model\.pth.*{why}"):
        read_weights_file(path)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_program_of_torchscript_is_no_checkpoint(tmp_path):
    path = tmp_path / "model.pt"
    torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1)).save(path)
    with pytest.raises(CheckpointError, match=r"model\.pt .*TorchScript program, which is not run"):
        read_weights_file(path)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.pth is missing"):
        read_weights_file(tmp_path / "gone.pth")
    with pytest.raises(CheckpointError, match="Is a directory"):
        read_weights_file(tmp_path)


# --- Every way to weights ------------------------------------------------------------------------


def as_last_checkpoint(path):
    (path.parent / run_folder.LAST_CHECKPOINT).write_text(path.name)
    return path.parent


def as_best_of_a_run(path):
    return path.rename(path.with_name(run_folder.MODEL_BEST)).parent


def asked(config, path, task):
    task = replace(config.task, name=task)
    return replace(config, task=task, weights=str(path), source="x.tif")


def resumed(path, config, model):
    train(
        Learner(model, None, None),
        None,
        loader=None,
        evaluate=None,
        checkpointer=weights.Checkpointer(model, as_last_checkpoint(path)),
        is_interrupted=None,
    )


def resumed_with_measured_statistics(path, config, model):
    folder = as_last_checkpoint(path)
    measured = {"parts": {"train": {"mean": [0.1], "std": [0.1]}}}
    (folder / run_folder.CHECK).write_text(json.dumps(measured))
    radiometry = replace(config.radiometry, mean=None, std=None)
    statistics.with_statistics(replace(config, radiometry=radiometry), folder)


def from_model_weights(path, config):
    return replace(config, model=replace(config.model, weights=str(path)))


WAYS = {
    "model.weights": lambda path, config, model: weights.load_pretrained(
        model, str(path), base=None
    ),
    "the zoo": lambda path, config, model: weights.load_pretrained(model, "zoo", base=None),
    "a checkpoint of this model": lambda path, config, model: weights.load_exactly(model, path),
    "its run": lambda path, config, model: weights.read_about(path),
    "layout": lambda path, config, model: pretrained.with_layout_of_weights(
        from_model_weights(path, config), path.parent
    ),
    "radiometry": lambda path, config, model: statistics.name_other_radiometry(
        from_model_weights(path, config)
    ),
    "resume": resumed,
    "statistics of a resume": resumed_with_measured_statistics,
    "train": lambda path, config, model: train_task.run(
        from_model_weights(path, config), path.parent, None
    ),
    "evaluate": lambda path, config, model: evaluate.run(
        asked(config, path, "evaluate"), path.parent, None
    ),
    "evaluate a run": lambda path, config, model: evaluate.run(
        asked(config, as_best_of_a_run(path), "evaluate"), path.parent, None
    ),
    "export": lambda path, config, model: export.run(
        asked(config, path, "export"), path.parent, None
    ),
    "predict": lambda path, config, model: detectors.choose_detector(
        asked(config, path, "predict"), path.parent
    ),
    "serve": lambda path, config, model: detectors.choose_detector(
        asked(config, path, "serve"), path.parent
    ),
    "onnx": lambda path, config, model: open_onnx(path, threads=1),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_to_weights_runs_anything(tmp_path, touch, way, typed_config, monkeypatch):
    config, model = typed_config("model=tiny", "hardware=cpu"), torch.nn.Linear(1, 1)
    monkeypatch.setattr(weights, "zoo_url", lambda _base: "https://example.org/model.pkl")
    content = {"model": {"w": torch.ones(1)}, "sar_experiments": touch}
    for kind, suffix in itertools.product(("torch", "torch before 1.6", "pickle 2"), SUFFIXES):
        folder = tmp_path / f"{kind}{suffix}"
        folder.mkdir()
        path = folder / f"model{suffix}"
        path.write_bytes(LAYOUTS[kind](content))
        monkeypatch.setattr(weights.PathManager, "get_local_path", lambda _url, p=path: str(p))
        with pytest.raises(CheckpointError, match=r"cannot be read") as refusal:
            WAYS[way](path, config, model)
        assert str(folder) in str(refusal.value)
        assert "\n" not in str(refusal.value)
