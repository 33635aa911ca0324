"""FRONT DOOR detect(): a model over a loader, as detections per image; and its validation loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from detectron2.evaluation import inference_context
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from sar_experiments import ranks
from sar_experiments.detections import Detections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray


def detect(
    model: torch.nn.Module,
    loader: Iterable[list[dict[str, Any]]],
    *,
    max_detections: int,
    on_image: Callable[[], bool] | None = None,
) -> dict[int, Detections] | None:
    """Run the model over every image once, in evaluation mode, and put its mode back.

    Args:
        model: Detectron2 model; maps a list of inputs to a list of ``{"instances": ...}``.
        loader: Batches of model inputs with ``image_id``, ``height`` and ``width``; one share of
            them on each rank.
        max_detections: Kept per image, best first.
        on_image: Called after each image, for a progress bar; False stops on all ranks.

    Returns:
        image id -> detections in pixels of the file; on rank 0 those of all ranks, else none.
        None where ``on_image`` stopped it on any rank.
    """
    found: dict[int, Detections] = {}
    model = getattr(model, "module", model)  # a rank's share needs no word with the others
    was_training = model.training
    goes_on = True
    try:
        with inference_context(model), torch.no_grad():
            for batch in loader:
                for record, output in zip(batch, model(batch), strict=True):
                    found[int(record["image_id"])] = _best(output["instances"], max_detections)
                    goes_on = goes_on and (on_image is None or on_image())
                if not goes_on:
                    break
    finally:  # Detectron2's context leaves the model in evaluation mode after an exception
        model.train(was_training)
    if ranks.any_of(not goes_on):
        return None
    gathered = comm.gather(found)
    return {image: each for part in gathered for image, each in part.items()}


def proposals(
    model: torch.nn.Module, loader: Iterable[list[dict[str, Any]]]
) -> dict[int, NDArray[np.float32]]:
    """Return what a two-stage detector's first stage looks at.

    Args:
        model: Detectron2 model, not wrapped; its mode is put back.
        loader: Batches of model inputs with ``image_id``, ``height`` and ``width``.

    Returns:
        image id -> boxes (N, 4) in pixels of the file, best first; empty for one-stage detectors.
    """
    detector: Any = model
    if getattr(detector, "proposal_generator", None) is None:
        return {}
    found: dict[int, NDArray[np.float32]] = {}
    was_training = model.training
    try:
        model.eval()
        with torch.no_grad():
            for batch in loader:
                images = detector.preprocess_image(batch)
                features = detector.backbone(images.tensor)
                proposed, _ = detector.proposal_generator(images, features, None)
                for record, each in zip(batch, proposed, strict=True):
                    height, width = each.image_size
                    boxes = each.proposal_boxes.tensor.float().cpu().numpy()
                    scale = np.array([record["width"] / width, record["height"] / height] * 2)
                    found[int(record["image_id"])] = (boxes * scale).astype(np.float32)
    finally:
        model.train(was_training)
    return found


def mean_losses(
    model: torch.nn.Module, loader: Iterable[list[dict[str, Any]]], *, seed: int
) -> dict[str, float]:
    """Return the training losses on data that is not learnt from, averaged over batches.

    Detectron2 computes losses in training mode alone, where batch norm would learn the validation
    data and proposals are sampled: the norms are held still, and the draws are seeded.

    Args:
        model: Detectron2 model; its mode, statistics and the random state are put back.
        loader: Batches of model inputs with ``instances``.
        seed: Of the sampling of proposals.

    Returns:
        Part of the loss -> mean, and ``loss`` -> the mean of their sum; empty without batches.
    """
    sums: dict[str, float] = {}
    batches = 0
    was_training = model.training
    devices = [p.device for p in model.parameters()][:1]
    # Detectron2's dense detectors follow the number of positive anchors in it; training's alone.
    normalizer = getattr(model, "loss_normalizer", None)
    try:
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
        cuda = [device for device in devices if device.type == "cuda"]
        # A storage of its own: the model logs sampling statistics, which belong to training.
        with torch.random.fork_rng(cuda), torch.no_grad(), EventStorage(0):
            torch.manual_seed(seed)
            for batch in loader:
                batches += 1
                for name, loss in model(batch).items():
                    sums[name] = sums.get(name, 0.0) + float(loss)
    finally:
        model.train(was_training)
        if normalizer is not None:
            model.loss_normalizer = normalizer
    means = {name: total / batches for name, total in sums.items()}
    return {"loss": sum(means.values()), **means} if means else {}


def _best(instances: Any, max_detections: int) -> Detections:  # noqa: ANN401 - Detectron2's
    instances = instances.to("cpu")
    found = Detections.of(
        instances.pred_boxes.tensor.numpy(),
        instances.scores.numpy(),
        instances.pred_classes.numpy(),
    )
    order = (-found.scores).argsort(kind="stable")[:max_detections]
    return found.select(order)
