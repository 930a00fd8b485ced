"""When a run is saved, what it is recognised by, and how it is continued."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphrec.errors import RunError

from .checkpoint import CheckpointFolder, differences
from .config import TrainConfig
from .interfaces import BatchSource
from .seeding import rng_state, set_rng_state

if TYPE_CHECKING:
    from torch import nn

    from .loop import FitLoop

_NOT_IDENTITY = {"epochs", "accelerator", "devices", "num_nodes", "strategy"}
_NOT_IDENTITY |= {"loggers", "checkpoint_every", "resume", "progress"}
_PROCESSES = "number of processes"
_COST = 19
"""A checkpoint by time waits until training took so many times what the last one took to write."""


def identity(
    config: TrainConfig,
    model: nn.Module,
    sources: Mapping[str, BatchSource | None],
    world: int,
    fingerprint: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What must be the same when a run is continued, as a flat dict.

    Args:
        config: All fields count but those that do not change the result.
        model: Its class and the shapes of its weights count.
        sources: By name; their steps and, where they have one, ``fingerprint`` count.
        world: Number of processes.
        fingerprint: Further things that must be the same.
    """
    values: dict[str, Any] = config.model_dump(mode="json", exclude=_NOT_IDENTITY)
    values |= {"model": type(model).__qualname__, _PROCESSES: world}
    values |= {f"shape of {name}": list(tensor.shape) for name, tensor in model.state_dict().items()}
    for name, source in sources.items():
        values[f"batches of the {name} part"] = None if source is None else source.steps
        values[f"fingerprint of the {name} part"] = getattr(source, "fingerprint", None)
    return values | dict(fingerprint or {})


class Saver:
    """Writes and reads the checkpoints of a `FitLoop`; without a run folder it does nothing.

    Args:
        loop: The run.
        fingerprint: See `identity`.
    """

    def __init__(self, loop: FitLoop, fingerprint: Mapping[str, Any] | None) -> None:
        self.loop, self.config, self.ranks = loop, loop.config, loop.ranks
        sources = {"train": loop.train, "valid": loop.valid}
        for name, source in sources.items():
            _check_source(name, source, self.ranks.world)
        self.identity = identity(loop.config, loop.model, sources, self.ranks.world, fingerprint)
        self.ranks.agree("the run", self.identity)
        self.folder = None if loop.run_dir is None else CheckpointFolder(loop.run_dir / "checkpoints")
        self.cadence = loop.config.cadence
        self._last = time.perf_counter()

    def due(self) -> bool:
        """Whether a checkpoint should follow the step that is under way; the first process decides."""
        if self.folder is None or not self.ranks.first:
            return False
        if self.cadence.steps is not None:
            return (self.loop.position.step + 1) % self.cadence.steps == 0
        wait = self.cadence.seconds
        return wait is not None and time.perf_counter() - self._last > max(wait, _COST * self.folder.cost)

    def save(self) -> None:
        """Write a checkpoint; all processes must call it."""
        if self.folder is None:
            return
        generators = self.ranks.collect(rng_state(self.loop.fabric.device))
        if self.ranks.first:
            about = {"identity": self.identity, "epochs": self.config.epochs, "rng": generators}
            tree = about | self.loop.state()
            self.folder.save(tree, self.loop.position.epoch, self.loop.position.step)
        self._last = time.perf_counter()

    def resume(self) -> None:
        """Put the run where its last checkpoint is, if it may and there is one.

        Raises:
            RunError: There is one and ``resume`` is false, or it belongs to another run.
        """
        if self.folder is None:
            return
        found = self.ranks.share(bool(self.folder.files()))
        if found and not self.config.resume:
            raise RunError(f"{self.folder.folder}: has checkpoints; set resume, or take another run folder")
        tree = self.folder.load() if found else None
        if found and tree is None:
            raise RunError(f"{self.folder.folder}: not every process sees the checkpoints; share the folder")
        if tree is not None:
            self._restore(tree)

    def _restore(self, tree: dict[str, Any]) -> None:
        self._check_processes(tree["identity"][_PROCESSES])
        self._check(tree)
        self.loop.load_state(tree)
        set_rng_state(tree["rng"][self.ranks.rank], self.loop.fabric.device)
        position = self.loop.position
        self.loop.display.line(f"resumed after epoch {position.epoch}, step {position.step}")

    def _check_processes(self, before: int) -> None:
        """Refuse another number of processes, with what to type: each has its part of every batch and its own
        random numbers.
        """
        now = self.ranks.world
        if self.folder is None or now == before:
            return
        how = f"torchrun --nproc-per-node {before}" if before > 1 else "without torchrun"
        raise RunError(
            f"{self.folder.folder}: was trained by {before} process{'es' * (before > 1)}, and {now} "
            f"{'are' if now > 1 else 'is'} running; resume with {before} (--devices {before}, in Python "
            f"devices={before}; or {how}), or start afresh with --overwrite"
        )

    def _check(self, tree: dict[str, Any]) -> None:
        found = differences(self.identity, tree["identity"])
        before = tree["epochs"]
        if self.config.epochs < before or (self.config.epochs > before and self.config.scheduler == "cosine"):
            why = (
                "no change under the cosine schedule"
                if self.config.epochs > before
                else "only more are allowed"
            )
            found.append(f"epochs is {self.config.epochs} here and {before} in the checkpoint ({why})")
        if found and self.folder is not None:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            raise RunError(
                f"{self.folder.folder}: cannot continue this run: {'; '.join(found[:3])}{more}; give what it "
                "was started with, or start afresh"
            )

    def finish(self) -> None:
        """Keep the last checkpoint only."""
        if self.folder is not None and self.ranks.first:
            self.folder.prune(1)


def _check_source(name: str, source: BatchSource | None, world: int) -> None:
    made_for = getattr(source, "world_size", world)
    if made_for != world:
        raise RunError(
            f"the {name} source was made for {made_for} processes and {world} are running; "
            "make it with the trainer's rank and world_size"
        )
