"""Values of a CFAR's config that cannot be meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sar_experiments.config import ClutterKind, StoredAs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sar_experiments.config import CfarConfig, Config

_LARGEST_PFA = 0.1
_SCALES = {
    ClutterKind.gaussian: tuple(StoredAs),
    ClutterKind.gamma: (StoredAs.intensity, StoredAs.db),
    ClutterKind.k: (StoredAs.intensity,),
}


def cfar_problems(config: Config, cfar: CfarConfig) -> Iterator[str]:
    """Yield a sentence for each value of a CFAR that cannot be meant."""
    if config.task.name == "train":
        yield (
            f"model={config.model.name} is a CFAR, which has nothing to learn: use task=evaluate or"
            " task=predict with it, or train another model"
        )
    if config.task.name == "export":
        yield f"model={config.model.name} is a CFAR: there is no network to export"
    if config.weights is not None:
        yield f"weights={config.weights}, but model={config.model.name} is a CFAR and has none"
    scales = _SCALES[cfar.distribution]
    if cfar.scale not in scales:
        yield (
            f"model.cfar.scale={cfar.scale.name} does not suit model.cfar.distribution="
            f"{cfar.distribution.name}, which takes {' or '.join(each.name for each in scales)}"
        )
    if cfar.distribution is ClutterKind.k and cfar.looks is None:
        yield "model.cfar.distribution=k needs model.cfar.looks, the equivalent number of looks"
    for key, value, problem in (
        ("looks", cfar.looks, cfar.looks is not None and not cfar.looks > 0),
        ("pixel_m", cfar.pixel_m, cfar.pixel_m is not None and not cfar.pixel_m > 0),
    ):
        if problem:
            yield f"model.cfar.{key}={value} must be above 0, or null"
    yield from _range_problems(cfar)


def _range_problems(cfar: CfarConfig) -> Iterator[str]:
    if not 0 < cfar.pfa <= cfar.extent_pfa <= _LARGEST_PFA:
        yield (
            f"model.cfar.pfa={cfar.pfa} and extent_pfa={cfar.extent_pfa} must lie in"
            f" (0, {_LARGEST_PFA}], pfa not above extent_pfa"
        )
    if not 0 <= cfar.guard_m < cfar.background_m:
        yield (
            f"model.cfar.guard_m={cfar.guard_m} must be 0 or more and below"
            f" background_m={cfar.background_m}"
        )
    if not 0 <= cfar.min_size_m <= cfar.max_size_m:
        yield (
            f"model.cfar.min_size_m={cfar.min_size_m} must be 0 or more and not above"
            f" max_size_m={cfar.max_size_m}"
        )
    if not 0 < cfar.min_background_share <= 1:
        yield f"model.cfar.min_background_share={cfar.min_background_share} must lie in (0, 1]"
    if cfar.passes < 1:
        yield f"model.cfar.passes={cfar.passes} must be 1 or more"
    for key in ("target_m", "min_contrast_db", "max_drop_db", "merge_gap_m"):
        if not getattr(cfar, key) >= 0:
            yield f"model.cfar.{key}={getattr(cfar, key)} must be 0 or more"
