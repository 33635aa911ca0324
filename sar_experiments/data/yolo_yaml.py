"""YOLO's data.yaml: class names, and where the images of each part lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from sar_experiments.data.images import SUFFIXES
from sar_experiments.data.label_files import files_in, list_text
from sar_experiments.errors import DatasetError

_ALIASES = {"val": ("val", "valid", "validation")}


@dataclass(frozen=True)
class DataYaml:
    """What a data.yaml says.

    Attributes:
        file: The data.yaml.
        root: Folder that its paths are relative to.
        names: Class names by number.
        parts: ``train``, ``val`` or ``test`` -> folders of images, or files that list images.
    """

    file: Path
    root: Path
    names: tuple[str, ...]
    parts: dict[str, tuple[str, ...]]

    def images(self, part: str) -> list[Path]:
        """Return the images of a part.

        Raises:
            DatasetError: The file has no such part, or a path of it does not exist.
        """
        if part not in self.parts:
            msg = f"{self.file} has no key {part!r}; set usecase.{part}.images=DIR"
            raise DatasetError(msg)
        return [
            image for entry in self.parts[part] for image in self._listed(self._path(entry), part)
        ]

    def _path(self, entry: str) -> Path:
        # Roboflow writes ../train/images for a folder beside the data.yaml.
        entry = entry.replace("\\", "/")
        tried = [self.root / entry, self.file.parent / entry]
        tried += [self.file.parent / entry.removeprefix("../")]
        for path in tried:
            if path.exists():
                return path
        msg = f"{self.file}: {entry} does not exist below {self.root}"
        raise DatasetError(msg)

    def _listed(self, path: Path, part: str) -> list[Path]:
        if path.is_dir():
            return files_in(path, SUFFIXES)
        if path.suffix.lower() != ".txt":
            msg = f"{self.file}: {part}: {path} is neither a folder nor a list ending in .txt"
            raise DatasetError(msg)
        lines = list_text(path).splitlines()
        names = [Path(line.strip().replace("\\", "/")) for line in lines if line.strip()]
        beside = [path.parent / name for name in names]
        return [a if a.exists() else self.root / b for a, b in zip(beside, names, strict=True)]


def read_data_yaml(path: Path) -> DataYaml:
    """Read class names and parts; a ``path`` that does not exist here is the file's own folder.

    Raises:
        DatasetError: It is no YAML file, or its names are none.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.create(list_text(path)))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        msg = f"{path} cannot be read as YAML: {error}"
        raise DatasetError(msg) from error
    if not isinstance(content, dict):
        msg = f"{path} holds no keys; a data.yaml has names, and train, val and test"
        raise DatasetError(msg)
    root = path.absolute().parent / str(content.get("path") or "")
    parts = {}
    for part in ("train", "val", "test"):
        entry = next((content[k] for k in _ALIASES.get(part, (part,)) if content.get(k)), None)
        if entry is not None:
            parts[part] = tuple(map(str, entry if isinstance(entry, list) else [entry]))
    root = root if root.is_dir() else path.absolute().parent
    return DataYaml(path, root, _names(content.get("names"), path), parts)


def _names(names: Any, path: Path) -> tuple[str, ...]:  # noqa: ANN401 - whatever the file holds
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or len(set(map(str, names))) != len(names):
        msg = f"{path} needs names: a list of class names, or names by number from 0, each once"
        raise DatasetError(msg)
    return tuple(map(str, names))
