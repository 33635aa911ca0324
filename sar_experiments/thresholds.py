"""From which score on detections count: one score per class, chosen on validation.

A rare or difficult class has lower scores than the others: one score for all, where the F1 of all
is best, may drop such a class whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sar_experiments import run_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

DEFAULT_SCORE = 0.5
"""Of a class whose score cannot be chosen."""

LEAST_F1 = 0.1
"""Best F1 on validation from which a class has a score of its own: below it there are more than
nine false alarms for each object even where all are found."""

ANY_NAME = "any class"
"""Of the one class where classes are not told apart."""

CHOSEN = "best F1 of each class on the validation split"
POOLED = "one for all classes, as an older version chose it"
CHOSEN_ANY_CLASS = "best F1 on the validation split, class-agnostic"
UNKNOWN = "the default, as nothing tells the run's own"
UNMEASURED = "the default, as there is no validation split with objects"


@dataclass(frozen=True)
class Threshold:
    """Score from which detections of a class count.

    Attributes:
        score: In [0, 1].
        f1: Best F1 of the class on validation, which the score gave; None where not measured.
        doubt: Why the score is DEFAULT_SCORE, as half a sentence; empty where it was chosen.
    """

    score: float
    f1: float | None = None
    doubt: str = ""


@dataclass(frozen=True)
class Thresholds:
    """Scores of all classes.

    Attributes:
        per_class: Class name -> threshold, in the order of the classes; empty where a detector
            names none.
        origin: How they were chosen: CHOSEN, CHOSEN_ANY_CLASS, POOLED, UNKNOWN or UNMEASURED.
        any_class: One for all detections where classes are not told apart, chosen likewise; None
            for one class, and where an older version chose the others.
    """

    per_class: Mapping[str, Threshold]
    origin: str
    any_class: Threshold | None = None

    @classmethod
    def alike(cls, classes: Sequence[str], score: float, origin: str) -> Thresholds:
        """Return one score for all classes."""
        return cls({name: Threshold(score) for name in classes}, origin)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], classes: Sequence[str]) -> Thresholds:
        """Return what ``to_plain`` gave.

        Raises:
            ValueError: It is no such thing, or of other classes.
        """
        try:
            kept = {name: Threshold(**plain["classes"][name]) for name in classes}
            any_class = Threshold(**plain["any_class"]) if plain.get("any_class") else None
            all_of_them = [*kept.values(), *([any_class] if any_class else [])]
            if not all(0 <= each.score <= 1 for each in all_of_them):
                msg = "a score lies outside [0, 1]"
                raise ValueError(msg)  # noqa: TRY301 - told like the others below
            return cls(kept, str(plain["origin"]), any_class)
        except (KeyError, TypeError, ValueError) as error:
            msg = f"the thresholds of {', '.join(classes)} are missing or broken: {error}"
            raise ValueError(msg) from error

    @property
    def scores(self) -> dict[str, float]:
        """Class name -> score."""
        return {name: each.score for name, each in self.per_class.items()}

    @property
    def least(self) -> NDArray[np.float32]:
        """(classes,) scores, as ``Detections.above`` takes them."""
        return np.array(list(self.scores.values()), np.float32)

    def rounded(self, digits: int) -> Thresholds:
        """Return scores of so many decimal digits, for detections of as many."""

        def shorter(each: Threshold) -> Threshold:
            return replace(each, score=round(each.score, digits))

        per_class = {name: shorter(each) for name, each in self.per_class.items()}
        any_class = None if self.any_class is None else shorter(self.any_class)
        return replace(self, per_class=per_class, any_class=any_class)

    def described(self) -> str:
        """Say the scores and how they were chosen, in one line."""
        return f"{listed(self.scores)} ({self.origin})"

    def to_plain(self) -> dict[str, Any]:
        """Return plain values, for JSON and checkpoints."""
        classes = {name: asdict(each) for name, each in self.per_class.items()}
        told: dict[str, Any] = {"origin": self.origin, "classes": classes}
        return told | ({} if self.any_class is None else {"any_class": asdict(self.any_class)})

    def as_metrics(self) -> dict[str, float | None]:
        """Return the scores by the names that they have in result.json and TensorBoard."""
        named: dict[str, float | None]
        named = {f"threshold/{name}": each.score for name, each in self.per_class.items()}
        if self.any_class is not None:
            named[f"threshold{run_folder.ANY_CLASS}"] = self.any_class.score
        return named

    def doubts(self) -> dict[str, str]:
        """Return a sentence for each class that has the default, with why."""
        told = dict(self.per_class)
        if self.any_class is not None and not told:
            told = {ANY_NAME: self.any_class}
        return {
            name: f"{name} has the default threshold {each.score:g}, as {each.doubt}"
            for name, each in told.items()
            if each.doubt
        }


def chosen(best: Mapping[str, tuple[float, float] | None], truths: Mapping[str, int]) -> Thresholds:
    """Return the scores of the best F1, and the default where that means nothing.

    Args:
        best: Class name -> score from which F1 is best on validation, and that F1; None where
            nothing hits.
        truths: Class name -> number of its objects in validation.
    """
    if not any(truths.values()):
        return unmeasured(list(best))
    return Thresholds({name: _of_class(each, truths[name]) for name, each in best.items()}, CHOSEN)


def unmeasured(classes: Sequence[str]) -> Thresholds:
    """Return the default, where there is nothing to choose on."""
    any_class = Threshold(DEFAULT_SCORE) if len(classes) > 1 else None
    return replace(Thresholds.alike(classes, DEFAULT_SCORE, UNMEASURED), any_class=any_class)


def _of_class(best: tuple[float, float] | None, truths: int) -> Threshold:
    if not truths:
        return Threshold(DEFAULT_SCORE, None, "the validation split holds none of it")
    score, f1 = best or (DEFAULT_SCORE, 0.0)
    if f1 >= LEAST_F1:
        return Threshold(score, f1)
    doubt = f"its best F1 on the validation split, {f1:.3f}, is below {LEAST_F1:g}"
    return Threshold(DEFAULT_SCORE, f1, doubt)


def of_run(folder: Path, classes: Sequence[str]) -> Thresholds | None:
    """Return the thresholds that a run recorded; None where it recorded none.

    Raises:
        ValueError: thresholds.json is broken, or is of other classes.
    """
    path = folder / run_folder.THRESHOLDS
    try:
        return Thresholds.from_plain(json.loads(path.read_text(encoding="utf-8")), classes)
    except FileNotFoundError:
        pass
    except (ValueError, TypeError, OSError) as error:
        msg = f"{path}: {error}"
        raise ValueError(msg) from error
    result = run_folder.read_result(folder)
    pooled = result.metrics.get("threshold") if result is not None else None
    return None if pooled is None else Thresholds.alike(classes, pooled, POOLED)


def listed(scores: Mapping[str, float]) -> str:
    """Return scores by class for people; one number where all are equal."""
    if len(set(scores.values())) == 1:
        return f"{next(iter(scores.values())):.3g}"
    return ", ".join(f"{name} {score:.3g}" for name, score in scores.items())


def as_array(scores: float | Mapping[str, float], classes: Sequence[str]) -> NDArray[np.float32]:
    """Return (classes,) scores, as ``Detections.above`` takes them.

    Raises:
        ValueError: A class has none.
    """
    if not isinstance(scores, Mapping):
        return np.full(len(classes), scores, np.float32)
    missing = [name for name in classes if name not in scores]
    if missing:
        msg = f"no score for {', '.join(missing)}; there are scores for {', '.join(scores)}"
        raise ValueError(msg)
    return np.array([scores[name] for name in classes], np.float32)
