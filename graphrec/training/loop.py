"""One training run, from the first step to the best weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor, nn

from graphrec.errors import ConfigError, DataError

from .averaging import WeightAverage
from .batches import FirstBatch, count_rows, device_batches
from .capture_check import leave_out_capture_check
from .checkpoint import copy_tensors
from .compiled import compiled, refuse_ragged
from .config import TrainConfig
from .display import Display
from .distributed import GradientExchange, Ranks, Reduced, batch_norms
from .evaluation import evaluate
from .gradients import clip_gradients
from .history import History
from .interfaces import BatchSource, BuildOptimizers, Metrics
from .loggers import log_values, make_loggers
from .nonfinite import nonfinite_error
from .placement import place
from .saving import Saver
from .schedules import Schedule
from .stopping import Stopper

_LOG_STEPS = 50


@dataclass
class Position:
    """Where a run is, and what it has summed since the last evaluation."""

    epoch: int = 0
    step: int = 0
    total: int = 0
    loss: float = 0.0
    rows: int = 0
    seconds: float = 0.0

    def advance(self, step: Reduced) -> None:
        """Count a step."""
        self.step += 1
        self.total += 1
        self.loss += step.loss * step.rows
        self.rows += step.rows


class FitLoop:
    """The state of one call of `Trainer.fit`.

    Everything that `state` returns is saved in checkpoints; a run continued from one makes the same steps, to
    the last bit, as one that was never interrupted.
    """

    def __init__(
        self,
        fabric: Fabric,
        config: TrainConfig,
        model: nn.Module,
        train: BatchSource,
        valid: BatchSource | None,
        *,
        metrics: Metrics | None,
        build_optimizers: BuildOptimizers,
        run_dir: Path | None,
        fingerprint: Mapping[str, Any] | None,
    ) -> None:
        for name, source in (("training", train), ("validation", valid)):
            if source is not None and source.steps < 1:
                raise DataError(f"the {name} part has no rows")
            if config.compile:
                refuse_ragged(source)
        self.fabric, self.config, self.model, self.run_dir = fabric, config, model, run_dir
        self.train, self.valid, self.metrics = train, valid, metrics
        self.ranks = Ranks(fabric)
        self._setup_model(build_optimizers)
        self.stopper = Stopper(config, "train_loss" if valid is None else f"valid_{config.monitor}")
        self.evaluate_at = _evaluation_steps(train.steps, config.evaluations_per_epoch)
        self.position, self.history = Position(), History()
        self.best: dict[str, Any] | None = None
        self.saver = Saver(self, fingerprint)
        self.display = Display(config.progress and self.ranks.first, config.epochs, self.stopper.monitor)

    def _setup_model(self, build_optimizers: BuildOptimizers) -> None:
        model, config = self.model, self.config
        place(model, self.fabric.device)
        self.ranks.equalise(model)
        self.params = [p for p in model.parameters() if p.requires_grad]
        self.optimizers = build_optimizers(model, config)
        if self.fabric.device.type == "cpu":
            for optimizer in self.optimizers:
                leave_out_capture_check(optimizer)
        self.schedule = Schedule(self.optimizers, config, config.epochs * self.train.steps)
        self.norms = batch_norms(model)
        self.exchange = GradientExchange(self.ranks, model)
        wrap: Callable[[Any], Any] = compiled if config.compile else (lambda function: function)
        self.loss: Callable[[Any], Tensor] = wrap(model.training_loss)
        self.predict: Callable[[Any], Tensor] = wrap(model.predict)
        self.constrain: Callable[[], None] = getattr(model, "constrain", lambda: None)
        self.average = None if config.ema is None else WeightAverage(model, config.ema, self.optimizers)

    def run(self) -> History:
        """Train until the epochs are over or nothing improves; leave the best weights in the model."""
        if self.valid is not None:  # a mistake shows now, not after an epoch
            self.stopper.check(self._scores(FirstBatch(self.valid)))
        self.saver.resume()
        self.loggers = make_loggers(self.config, self.run_dir) if self.ranks.first else []
        status = "failed"
        try:
            with self.display:
                while self.position.epoch < self.config.epochs and not self.stopper.stop:
                    self._epoch()
            status = "success"
        finally:
            for logger in self.loggers:
                logger.finalize(status)
        if self.stopper.stop:
            self.history.stopped = "patience"
        if self.best is not None:
            self.model.load_state_dict(self.best)
        elif self.average is not None:
            self.average.apply()
        self.saver.finish()
        return self.history

    def _epoch(self) -> None:
        position, steps = self.position, self.train.steps
        self.display.epoch(position.epoch, position.step, steps)
        self.model.train()
        self._clock = time.perf_counter()
        for batch in device_batches(self.train, position.epoch, position.step, self.fabric.device):
            done = self._step(batch)
            position.advance(done)
            self._show(done)
            if position.step in self.evaluate_at:
                self._evaluate()
                if self.stopper.stop:
                    break
            if done.flag and position.step < steps:
                self._save()
        if position.step == steps:
            position.epoch, position.step = position.epoch + 1, 0
        self._save()

    def _step(self, batch: Any) -> Reduced:
        """One optimiser step."""
        for param in self.params:
            param.grad = None
        rows = count_rows(batch)
        with self._single_row(rows):
            loss = self._backward(batch) if rows else None
        done = self.exchange(loss, rows, self.saver.due())
        if not math.isfinite(done.loss):
            self._fail(f"the loss is {done.loss}", batch)
        if self.config.clip_norm is not None:
            norm = clip_gradients(self.params, self.config.clip_norm)
            if not math.isfinite(norm):
                self._fail(f"the loss is {done.loss:.6g} but the gradient is {norm}", batch)
        self.schedule.apply(self.position.total)
        for optimizer in self.optimizers:
            optimizer.step()
        self.constrain()
        if self.average is not None:
            self.average.after()
        return done

    def _backward(self, batch: Any) -> Tensor:
        """Mean loss of a batch, with its gradients in ``param.grad``."""
        with self.fabric.autocast():
            loss = self.loss(batch)
        self.fabric.backward(loss)
        return loss.detach()

    @contextmanager
    def _single_row(self, rows: int) -> Iterator[None]:
        """One row has no variance: batch norms that train use their running statistics for it.

        A last batch of one row is common (rows % batch_size == 1), and torch's batch norm raises on it.
        """
        norms = [m for m in self.norms if m.training and m.running_mean is not None] if rows == 1 else []
        for norm in norms:
            norm.eval()
        yield
        for norm in norms:
            norm.train()

    def _fail(self, what: str, batch: Any) -> None:
        at = (self.position.epoch + 1, self.position.step + 1)
        raise nonfinite_error(what, batch, self.model, at, self.run_dir, self.ranks.rank)

    def _evaluate(self) -> None:
        """Write a row of history, keep the weights if they are the best, tell schedule and stopper."""
        self.tick()
        self.display.note("evaluating")
        row = self._row()
        with nullcontext() if self.average is None else self.average.applied():
            if self.valid is not None:
                row |= self._scores(self.valid)
            improved = self.stopper.update(row)
            if improved and self.valid is not None:
                self.best = copy_tensors(self.model.state_dict())
        position = self.position
        speed = position.rows / position.seconds
        row |= {"lr": self.schedule.lr, "seconds": position.seconds, "rows_per_s": speed, "best": improved}
        self.schedule.evaluated(improved)
        position.loss, position.rows, position.seconds = 0.0, 0, 0.0
        self.history.rows.append(row)
        self.display.row(row)
        log_values(self.loggers, row, position.total)
        self._clock = time.perf_counter()

    def _scores(self, source: BatchSource) -> dict[str, Any]:
        if self.metrics is None:
            raise ConfigError("metrics: give a metrics object with the validation rows")
        found = evaluate(self.fabric, self.ranks, self.model, self.predict, source, self.metrics)
        return {f"valid_{name}": value for name, value in found.items()}

    def _row(self) -> dict[str, Any]:
        position = self.position
        part = position.step / self.train.steps
        epoch = position.epoch + (1 if part == 1 else round(part, 4))
        return {"epoch": epoch, "step": position.total, "train_loss": position.loss / max(position.rows, 1)}

    def _show(self, done: Reduced) -> None:
        position = self.position
        seconds = position.seconds + time.perf_counter() - self._clock
        self.display.step(position.step, done.loss, position.rows / seconds)
        if self.loggers and position.total % _LOG_STEPS == 0:
            log_values(self.loggers, {"loss": done.loss, "lr": self.schedule.lr}, position.total)

    def tick(self) -> None:
        """Add the time since the last tick to the training time."""
        now = time.perf_counter()
        self.position.seconds += now - self._clock
        self._clock = now

    def _save(self) -> None:
        self.tick()
        self.saver.save()
        self._clock = time.perf_counter()

    def state(self) -> dict[str, Any]:
        """All that decides the rest of the run, but for the random generators."""
        return {
            "position": asdict(self.position),
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedule": self.schedule.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "stopper": self.stopper.state_dict(),
            "best": self.best,
            "history": self.history.rows,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.position = Position(**state["position"])
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.stopper.load_state_dict(state["stopper"])
        self.best, self.history.rows = state["best"], state["history"]


def _evaluation_steps(steps: int, count: int) -> frozenset[int]:
    """Steps of an epoch after which to evaluate; the last is one of them."""
    return frozenset(math.ceil(steps * part / count) for part in range(1, count + 1))
