"""What happens between steps, besides Detectron2's own hooks."""

from __future__ import annotations

import logging
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, get_event_storage
from tqdm import tqdm

from sar_experiments import ranks, run_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sar_experiments.model.weights import Checkpointer
    from sar_experiments.pruning import Pruning

logger = logging.getLogger(__name__)

PLAIN_LINE_PERIOD_S = 15.0


class StopTraining(BaseException):
    """Ask the loop to end after this step; not an Exception, which Detectron2 would log as one."""


class SeedEveryStep(HookBase):
    """Make each step's random draws a function of the seed and the step.

    Proposal sampling draws from PyTorch's global generator. Seeded per step, a resumed run draws
    what the uninterrupted one would have drawn, and an evaluation in between changes nothing.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def before_step(self) -> None:
        """Seed PyTorch's generators on all devices."""
        torch.manual_seed((self._seed << 32) + (int(self.trainer.iter) << 8) + comm.get_rank())


class LossNormalizer(HookBase):
    """Keep RetinaNet's running number of positive anchors in checkpoints, and alike on all ranks.

    Detectron2's dense detectors divide their loss by it and keep it as a plain attribute, which
    no checkpoint of its own holds: a resumed run would start again from 100.
    """

    ATTRIBUTE = "loss_normalizer"

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = getattr(model, "module", model)

    def after_step(self) -> None:
        """Let all ranks go on with their mean."""
        value = getattr(self._model, self.ATTRIBUTE, None)
        if value is not None:
            setattr(self._model, self.ATTRIBUTE, ranks.mean_of(float(value)))

    def state_dict(self) -> dict[str, Any]:
        """Return the number, or None for a model without one."""
        return {self.ATTRIBUTE: getattr(self._model, self.ATTRIBUTE, None)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` returned."""
        if state[self.ATTRIBUTE] is not None:
            setattr(self._model, self.ATTRIBUTE, state[self.ATTRIBUTE])


class Validation(HookBase):
    """Evaluate every ``period`` steps and at the end; keep the best checkpoint; stop early.

    Detectron2's EvalHook and BestCheckpointer forget the best value on resume and overwrite the
    best checkpoint with a worse one; this hook's state is part of the checkpoint.
    """

    def __init__(
        self,
        evaluate: Callable[[torch.nn.Module], Mapping[str, float | None]],
        checkpointer: Checkpointer,
        *,
        period: int,
        metric: str,
        patience: int,
        pruning: Pruning | None = None,
    ) -> None:
        """Evaluate while training.

        Args:
            evaluate: Model -> metrics; None for a metric without meaning on this data.
            checkpointer: Writes model_best.pth.
            period: Steps between evaluations; 0 evaluates at the end alone.
            metric: What decides; larger is better.
            patience: Evaluations without improvement after which training stops; 0 never stops.
            pruning: When to give up among the runs of a sweep.
        """
        self._evaluate = evaluate
        self._checkpointer = checkpointer
        self._period = period
        self._metric = metric
        self._patience = patience
        self._pruning = pruning
        self.why_pruned = ""
        self.best: float | None = None
        self._is_told = False
        self.best_step = 0
        self.latest: float | None = None
        self.since_best = 0
        self.owed_step = 0  # an evaluation that was interrupted and is due on resume

    def before_train(self) -> None:
        """Catch up on an evaluation that an interruption cut short."""
        if self.owed_step:
            self._run(self.owed_step)

    def after_step(self) -> None:
        """Evaluate where it is due."""
        done = int(self.trainer.iter) + 1
        due = self._period > 0 and done % self._period == 0
        if due or done == self.trainer.max_iter:
            self._run(done)

    @property
    def is_hopeless(self) -> bool:
        """Whether patience is at its end."""
        return 0 < self._patience <= self.since_best

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know."""
        state = {"best": self.best, "best_step": self.best_step, "since_best": self.since_best}
        return {**state, "latest": self.latest, "owed_step": self.owed_step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` returned."""
        self.best, self.best_step = state["best"], state["best_step"]
        self.since_best, self.latest = state["since_best"], state["latest"]
        self.owed_step = state["owed_step"]

    def _run(self, done: int) -> None:
        self.owed_step = done
        try:
            metrics = self._evaluate(self.trainer.model)
        except StopTraining:  # interrupted: the checkpoint that follows remembers the debt
            return
        self.owed_step = 0
        comm.synchronize()
        for name, value in metrics.items():
            if value is not None:
                self.trainer.storage.put_scalar(f"val/{name}", value, smoothing_hint=False)
        value = metrics.get(self._metric)
        self.latest = None if value is None or math.isnan(value) else float(value)
        if self.latest is None:
            self._say_unmeasured(done)
        # Without a measurement, none so far included, what learnt longest is kept.
        if self.best is None or (self.latest is not None and self.latest > self.best):
            self.best, self.best_step, self.since_best = self.latest, done, 0
            if comm.is_main_process():
                self._checkpointer.save_whole(run_folder.MODEL_BEST, step=done)
                self._record(metrics)
        elif self.latest is not None:
            self.since_best += 1
        self._prune(done)

    def _prune(self, done: int) -> None:
        if self._pruning is not None and self.best is not None and done < self.trainer.max_iter:
            # The other runs write meanwhile: one rank reads, so that all decide alike.
            rule, best = self._pruning, self.best
            self.why_pruned = ranks.from_first(lambda: rule.reason(done, best))

    def _say_unmeasured(self, done: int) -> None:
        if not self._is_told and comm.is_main_process():
            logger.warning(
                "step %d: %s cannot be measured, as val holds no object that counts; %s is that of"
                " the last evaluation, and solver.patience stops nothing",
                done,
                self._metric,
                run_folder.MODEL_BEST,
            )
        self._is_told = True

    def _record(self, metrics: Mapping[str, float | None]) -> None:
        """Let result.json tell the numbers of the best checkpoint while the run goes on."""
        folder = Path(self._checkpointer.save_dir)
        if run_folder.read_result(folder) is not None:
            run_folder.update_result(folder, metrics=dict(metrics))


class Checkpoints(HookBase):
    """Write the checkpoint that a run resumes from, keep the newest alone, write the final one.

    Detectron2's PeriodicCheckpointer forgets on resume which files it may delete, and writes no
    final checkpoint when training stops early.
    """

    def __init__(self, checkpointer: Checkpointer, *, period: int) -> None:
        self._checkpointer = checkpointer
        self._period = period

    def after_step(self) -> None:
        """Save where it is due; the last step is left to ``save_final``."""
        done = int(self.trainer.iter) + 1
        if done % self._period == 0 and done < self.trainer.max_iter:
            self.save()

    def save(self) -> None:
        """Save everything a resume needs, then let ``last_checkpoint`` name it."""
        self._save(f"model_{int(self.trainer.iter) + 1:07d}.pth")

    def save_final(self) -> None:
        """Save the state at the end of training."""
        self._save(run_folder.MODEL_FINAL)

    def _save(self, name: str) -> None:
        if not comm.is_main_process():
            return
        done = int(self.trainer.iter) + 1
        state = {**self.trainer.state_dict(), "processes": comm.get_world_size()}
        path = self._checkpointer.save_whole(name, state=state, step=done)
        run_folder.write_atomically(path.with_name(run_folder.LAST_CHECKPOINT), name)
        for older in path.parent.glob("model_[0-9]*.pth"):
            if older != path:
                older.unlink(missing_ok=True)


class StopOnRequest(HookBase):
    """End training after this step when a signal or the validation asks for it.

    Registered last, so that every other hook has seen the step.
    """

    def __init__(
        self, is_interrupted: Callable[[], bool], validation: Validation, checkpoints: Checkpoints
    ) -> None:
        self._is_interrupted = is_interrupted
        self._validation = validation
        self._checkpoints = checkpoints
        self.interrupted = False

    def after_step(self) -> None:
        """Stop where somebody asked for it.

        Raises:
            StopTraining: Out of the loop.
        """
        done = int(self.trainer.iter) + 1
        if ranks.any_of(self._is_interrupted()):  # all stop after the same step
            self.interrupted = True
            self._checkpoints.save()
            logger.info("interrupted after step %d; checkpoint written", done)
            raise StopTraining
        if self._validation.why_pruned:
            logger.info("%s", self._validation.why_pruned)
            raise StopTraining
        if self._validation.is_hopeless and done < self.trainer.max_iter:
            logger.info(
                "stopped early at step %d: no better than %.4f (step %d) for %d evaluations",
                done,
                self._validation.best,
                self._validation.best_step,
                self._validation.since_best,
            )
            raise StopTraining


class Progress(EventWriter):
    """A progress bar on a terminal; elsewhere a plain line every few seconds."""

    def __init__(self, *, start_step: int, max_iter: int, metric: str) -> None:
        self._metric = metric
        self._max_iter = max_iter
        self._start = (time.monotonic(), start_step)
        self._last_line_s = time.monotonic()
        self._shown = start_step
        self._is_terminal = sys.stdout.isatty()
        self._bar = tqdm(
            total=max_iter,
            initial=start_step,
            desc="train",
            unit="step",
            file=sys.stdout,
            disable=not self._is_terminal,
            dynamic_ncols=True,
            leave=False,
        )

    def write(self) -> None:
        """Show where training is."""
        storage = get_event_storage()
        done = min(storage.iter + 1, self._max_iter)
        if done == self._shown:  # Detectron2 writes once more after training
            return
        self._shown = done
        text = self._text(storage.histories())
        if self._is_terminal:
            self._bar.update(done - self._bar.n)
            self._bar.set_postfix_str(text)
            return
        now = time.monotonic()
        if now - self._last_line_s >= PLAIN_LINE_PERIOD_S or done >= self._max_iter:
            self._last_line_s = now
            logger.info("step %d/%d, %s, %s left", done, self._max_iter, text, self._left(done))

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()

    def _text(self, histories: Mapping[str, Any]) -> str:
        parts = []
        if "total_loss" in histories:
            parts.append(f"loss {histories['total_loss'].median(20):.3f}")
        if f"val/{self._metric}" in histories:
            parts.append(f"{self._metric} {histories[f'val/{self._metric}'].latest():.3f}")
        return ", ".join(parts)

    def _left(self, done: int) -> str:
        began_s, began_step = self._start
        per_step_s = (time.monotonic() - began_s) / max(1, done - began_step)
        return str(tqdm.format_interval(per_step_s * (self._max_iter - done)))
