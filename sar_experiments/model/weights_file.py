"""FRONT DOOR read_weights_file(): anyone's weights, of which nothing is ever run.

A pickle is a program: who reads it as Python does runs it. Here PyTorch's files are read by
PyTorch's own unpickler of tensors and plain values (``weights_only``), and the pickles of the model
zoos of Detectron2 and Caffe2 by one that knows the names of ALLOWED and builds arrays itself. What
a file is, its first bytes tell, not its name. All other ways to a checkpoint lead through here.
"""

from __future__ import annotations

import codecs
import math
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sar_experiments.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

ACCEPTED = (
    "accepted are checkpoints of this package, of Detectron2 and of PyTorch that hold tensors and"
    " plain values, and .pkl files of Detectron2's and Caffe2's model zoos"
)

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_OTHERS = {  # first bytes -> what it is
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file, as Keras writes",
    b"\x08": "no checkpoint; an ONNX file is used with runtime=onnx",
}
# In PyTorch's files before version 1.6 three numbers come first; this is one of them.
_OLD_TORCH = b"l\xfc\x9cF\xf9 j\xa8P\x19"
_OLDEST_TORCH = (257, b"ustar")  # a tar archive, before version 0.4
_START_BYTES = 512
_ASKED_FOR = re.compile(r"GLOBAL ([\w.]+)")


def read_weights_file(path: Path, *, as_map: bool = False) -> dict[str, Any]:
    """Read a file of weights onto the CPU: tensors, arrays and plain values.

    Args:
        path: PyTorch's, or a pickle of a model zoo.
        as_map: Leave the tensors on the disk where the file allows it: quicker where only the
            plain values are wanted.

    Returns:
        What the file holds; in a model zoo's pickle arrays have become tensors.

    Raises:
        CheckpointError: Missing, cut short, no weights, or it holds more than values; in one
            sentence, and nothing in it was run.
    """
    start = _start_of(path)
    is_zip, is_old = start.startswith(_ZIP), _OLD_TORCH in start[: 2 * len(_OLD_TORCH)]
    if not (is_zip or is_old or start.startswith(_PICKLE)):
        msg = f"{path} cannot be read as a checkpoint: it is {_named(start)}; {ACCEPTED}"
        raise CheckpointError(msg)
    try:
        if is_zip:
            _check_archive(path)
        if is_zip or is_old:
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=is_zip and as_map
            )
        else:
            with path.open("rb") as file:
                content = _plain(_Unpickler(file, encoding="latin1").load())
    except CheckpointError:
        raise
    except Exception as error:  # bytes of a stranger can make an unpickler raise anything
        msg = f"{path} cannot be read as a checkpoint: {_why(error)}"
        raise CheckpointError(msg) from error
    if not isinstance(content, dict):
        msg = f"{path} holds a {type(content).__name__}, a checkpoint holds a dict; {ACCEPTED}"
        raise CheckpointError(msg)
    return dict(dict.items(content))  # a dict whose methods no attribute of the file's hides


def _start_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
    except FileNotFoundError as error:
        msg = f"checkpoint {path} is missing"
        raise CheckpointError(msg) from error
    except OSError as error:  # a folder, or no right to read
        msg = f"{path} cannot be read as a checkpoint: {error.strerror}; {ACCEPTED}"
        raise CheckpointError(msg) from error
    if not start:
        msg = f"{path} cannot be read as a checkpoint: it is empty (0 bytes)"
        raise CheckpointError(msg)
    return start


def _named(start: bytes) -> str:
    position, mark = _OLDEST_TORCH
    if start[position:].startswith(mark):
        return "a tar archive, as PyTorch wrote before version 0.4"
    found = (name for magic, name in _OTHERS.items() if start.startswith(magic))
    return next(found, "no file of PyTorch and no pickle of a model zoo")


def _check_archive(path: Path) -> None:
    """Refuse zip archives that are none of PyTorch's state."""
    why = "it is cut short"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
        if "constants.pkl" in names:
            why = f"it is a TorchScript program, which is not run; {ACCEPTED}"
        elif "data.pkl" not in names:
            why = f"it is a zip archive without PyTorch's data.pkl; {ACCEPTED}"
        else:
            return
    msg = f"{path} cannot be read as a checkpoint: {why}"
    raise CheckpointError(msg)


def _why(error: Exception) -> str:
    """Return the reason as half a sentence, without PyTorch's advice to run what is inside."""
    asked_for = _ASKED_FOR.search(str(error))
    if asked_for:
        return f"it asks for {asked_for[1]}, and nothing in it is run; {ACCEPTED}"
    if isinstance(error, pickle.UnpicklingError):
        return f"it holds more than tensors and plain values, and nothing in it is run; {ACCEPTED}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


# --- Pickles of the model zoos -------------------------------------------------------------------
#
# NumPy believes what a pickle says of an array's type, down to flags of memory; so none of NumPy's
# own functions is called with it. What stands in for them checks type, shape and length.


class _Stand:
    """Stands for one of NumPy's names; nothing in a file can alter it."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a name of NumPy cannot be given a state")


class _DtypeMaker(_Stand):
    def __call__(self, code: object, *_flags: object) -> _Dtype:
        return _Dtype(code)


class _ArrayMaker(_Stand):
    def __call__(self, *_of_an_empty_one: object) -> _Array:
        return _Array()


class _Scalar(_Stand):
    def __call__(self, dtype: _Dtype, content: bytes | str) -> Any:  # noqa: ANN401 - a number
        return _array(dtype, (), content).item()


class _FromBuffer(_Stand):
    def __call__(self, content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
        found = _Array()
        found.content = _array(dtype, shape, bytes(content), is_fortran=order == "F")
        return found


class _Encode(_Stand):
    """Python 3 writes bytes as text and its encoding where Python 2 shall read them."""

    def __call__(self, text: str, encoding: str = "latin1") -> bytes:
        if codecs.lookup(encoding).name != "iso8859-1":
            raise _asks_for("codecs", encoding)
        return text.encode("latin1")


class _Dtype:
    """A number's type as a pickle tells it: ``f4``, then its byte order."""

    __slots__ = ("found",)

    def __init__(self, code: object) -> None:
        if not (isinstance(code, str) and re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248])", code)):
            raise _asks_for("numpy.dtype", code)
        self.found = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] == ">":
            self.found = self.found.newbyteorder(">")


class _Array:
    """An array as a pickle tells it: first empty, then version, shape, type, order, bytes."""

    __slots__ = ("content",)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, is_fortran, content = state[-4:]
        self.content = _array(dtype, shape, content, is_fortran=bool(is_fortran))


def _array(
    dtype: _Dtype, shape: tuple[int, ...], content: bytes | str, *, is_fortran: bool = False
) -> np.ndarray[Any, Any]:
    raw = content.encode("latin1") if isinstance(content, str) else bytes(content)
    if len(raw) != math.prod(shape) * dtype.found.itemsize:
        msg = f"{len(raw)} bytes do not fill an array of {shape} {dtype.found}"
        raise ValueError(msg)
    flat = np.frombuffer(raw, dtype.found).astype(dtype.found.newbyteorder("="))
    return flat.reshape(shape, order="F" if is_fortran else "C")


def _asks_for(module: str, name: object) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(f"GLOBAL {module}.{name}")


_CORES = ("numpy.core", "numpy._core")  # before and since NumPy 2
_BUILTINS = ("__builtin__", "builtins")  # of Python 2 and 3
ALLOWED: Mapping[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _Encode(),
    "numpy.ndarray": "numpy.ndarray",  # a word: the makers do not need the class
    "numpy.dtype": _DtypeMaker(),
    **{f"{core}.multiarray._reconstruct": _ArrayMaker() for core in _CORES},
    **{f"{core}.multiarray.scalar": _Scalar() for core in _CORES},
    **{f"{core}.numeric._frombuffer": _FromBuffer() for core in _CORES},
    **{f"{module}.bytes": bytes for module in _BUILTINS},
    **{f"{module}.bytearray": bytearray for module in _BUILTINS},
}
"""All that a pickle of a model zoo may name: what it is -> what it gets."""


class _Unpickler(pickle.Unpickler):
    """Knows the names of ALLOWED, and imports nothing."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as pickle has it
        if f"{module}.{name}" not in ALLOWED:
            raise _asks_for(module, name)
        return ALLOWED[f"{module}.{name}"]


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a file holds
    """Return containers of Python with tensors for arrays."""
    if isinstance(value, dict):  # its own methods may have been hidden by the file
        return {_plain(key): _plain(each) for key, each in dict.items(value)}
    if isinstance(value, list | tuple):
        return type(value)(_plain(each) for each in value)
    if isinstance(value, _Array):
        return _tensor(value.content)
    if isinstance(value, _Stand | _Dtype):
        raise pickle.UnpicklingError("a name of NumPy is no value")
    return value


def _tensor(array: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.from_numpy(array.copy(order="C"))
