"""Datasets under Detectron2's names, for its own tools; the only caller of DatasetCatalog.

Training here does not need it: the loaders take samples. Detectron2's visualisers and scripts do.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from detectron2.data import DatasetCatalog, MetadataCatalog

if TYPE_CHECKING:
    from sar_experiments.data.annotations import Dataset


def register(dataset: Dataset) -> str:
    """Register a dataset with Detectron2 and return the name it has there.

    The name ends in a hash of the content: registering the same twice is harmless, and the same
    name can never mean other data, as it silently can where a name is all there is.
    """
    content = json.dumps([dataset.classes, dataset.samples], sort_keys=True)
    digest = hashlib.blake2b(content.encode(), digest_size=5).hexdigest()
    name = f"{re.sub(r'[^A-Za-z0-9]+', '_', dataset.name).strip('_').lower()}_{digest}"
    if name not in DatasetCatalog.list():
        DatasetCatalog.register(name, lambda: list(dataset.samples))
        MetadataCatalog.get(name).set(thing_classes=list(dataset.classes), evaluator_type="coco")
    return name
