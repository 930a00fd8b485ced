"""The stages of a fit: a network on labels, and a student on a network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.errors import ConfigError
from graphrec.pipelines.index_splits import IndexSplit

from ..rows import Features
from .fullbatch import Row, train_full_batch
from .hgnn import TEACHERS
from .incidence import Incidence
from .lighthgnn import Distillation, LightStudent, Reliability, hyperedge_reliability

STUDENTS = ("lighthgnn", "lighthgnnp")
MODELS = (*TEACHERS, "mlp", *STUDENTS)


@dataclass(frozen=True)
class Task:
    """What is fitted on.

    Attributes:
        x: Features, (N, F), sparse or not.
        incidence: Of the hypergraph.
        y: Classes, int64 (N,).
        split: Whose ``train`` and ``valid`` are used; all that they hold are labelled.
        classes: How many.
    """

    x: Features
    incidence: Incidence
    y: Tensor
    split: IndexSplit
    classes: int


@dataclass(frozen=True)
class Steps:
    """How long and how fast; the defaults are LightHGNN's."""

    epochs: int = 200
    learning_rate: float = 0.01
    weight_decay: float = 5e-4


@dataclass(frozen=True)
class Light:
    """What a student's loss takes; see `graphrec.graph.hypergraph.lighthgnn.Distillation`."""

    label_weight: float = 0.0
    temperature: float = 1.0
    noise: float = 1.0
    official_arithmetic: bool = False


@dataclass(frozen=True)
class Plan:
    """What a fit does.

    Attributes:
        shape: Keywords of `build` for what will predict.
        teacher: The same for its teacher; None for a model that has none.
        steps: Of every stage.
        light: Of a student.
    """

    shape: dict[str, Any]
    teacher: dict[str, Any] | None
    steps: Steps
    light: Light


@dataclass
class Fitted:
    """What a fit leaves.

    Attributes:
        module: What predicts.
        teacher: What it learned from, or None.
        teacher_shape: Keywords of `build` that make it again.
        reliability: Of LightHGNN+'s hyperedges, or None.
        history: A row per stage and epoch.
        metrics: Validation accuracy of each stage.
    """

    module: nn.Module
    teacher: nn.Module | None = None
    teacher_shape: dict[str, Any] | None = None
    reliability: Reliability | None = None
    history: list[Row] = field(default_factory=list)
    metrics: dict[str, dict[str, float | None]] = field(default_factory=dict)

    def note(self, stage: str, module: nn.Module, rows: list[Row], task: Task) -> None:
        """Keep a stage's history and validation accuracy."""
        self.history += [{"stage": stage, **row} for row in rows]
        valid = task.split.valid
        with torch.no_grad():
            found = logits_of(module, task.x, task.incidence)[valid]
        self.metrics[stage] = {"valid": accuracy(found, task.y[valid]) if len(valid) else None}


def build(
    features: int, classes: int, *, name: str, hidden: int, student_hidden: int, layers: int, dropout: float
) -> nn.Module:
    """A network or student by name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name in TEACHERS:
        return TEACHERS[name](features, classes, hidden=hidden, layers=layers, dropout=dropout)
    if name not in MODELS:
        raise ConfigError(f"model: there is no {name!r}; choose one of {', '.join(MODELS)}")
    return LightStudent(features, classes, hidden=student_hidden, dropout=dropout)


def accuracy(logits: Tensor, y: Tensor) -> float:
    """Share of right classes; 0 without any."""
    return float((logits.argmax(1) == y).float().mean()) if len(y) else 0.0


def logits_of(module: nn.Module, x: Features, incidence: Incidence | None) -> Tensor:
    """Of a network on a hypergraph, or of a student on features alone; (N, C)."""
    found: Tensor = module(x) if isinstance(module, LightStudent) else module(x, incidence)
    return found


def fit_labels(module: nn.Module, task: Task, steps: Steps) -> list[Row]:
    """Train by cross-entropy on the training vertices; a perceptron sees these alone."""
    train = task.split.train
    alone = isinstance(module, LightStudent)
    x, y = task.x, task.y
    x_train = x[train] if alone else x

    def loss() -> Tensor:
        found = logits_of(module, x_train, task.incidence)
        return F.cross_entropy(found if alone else found[train], y[train])

    return _run(module, loss, task, steps)


def distil(
    student: nn.Module, teacher: nn.Module, task: Task, light: Light, steps: Steps, *, high_order: bool
) -> tuple[list[Row], Reliability | None]:
    """Train a student on a teacher's soft labels of all vertices.

    Args:
        student: Takes features.
        teacher: Takes features and incidences; is not trained.
        task: What both saw.
        light: Of the loss.
        steps: How long.
        high_order: Whether LightHGNN+'s term is added.

    Returns:
        History, and the reliability of the hyperedges with ``high_order``.
    """
    teacher.eval()
    with torch.no_grad():
        target = teacher(task.x, task.incidence)
    trust = hyperedge_reliability(teacher, task.x, task.incidence, noise=light.noise) if high_order else None
    terms = Distillation(
        target, task.incidence, trust, light.label_weight, light.temperature, light.official_arithmetic
    )

    def loss() -> Tensor:
        return terms.loss(student(task.x), task.y, task.split.train)

    return _run(student, loss, task, steps), trust


def carry_out(plan: Plan, task: Task, given: tuple[nn.Module, dict[str, Any]] | None) -> Fitted:
    """Fit as planned.

    Args:
        plan: What to do.
        task: On what.
        given: A fitted teacher and its shape, instead of the plan's.
    """
    widths, device = (task.x.shape[1], task.classes), task.x.device
    if plan.teacher is None:
        found = Fitted(build(*widths, **plan.shape).to(device))
        found.note(plan.shape["name"], found.module, fit_labels(found.module, task, plan.steps), task)
        return found
    if given is None:
        teacher, shape = build(*widths, **plan.teacher).to(device), plan.teacher
        rows = fit_labels(teacher, task, plan.steps)
    else:
        teacher, shape, rows = copy.deepcopy(given[0]).to(device), given[1], []
    found = Fitted(build(*widths, **plan.shape).to(device), teacher, shape)
    found.note("teacher", teacher, rows, task)
    high_order = plan.shape["name"] == "lighthgnnp"
    rows, found.reliability = distil(
        found.module, teacher, task, plan.light, plan.steps, high_order=high_order
    )
    found.note("student", found.module, rows, task)
    return found


def _run(module: nn.Module, loss: Callable[[], Tensor], task: Task, steps: Steps) -> list[Row]:
    valid = task.split.valid
    alone = isinstance(module, LightStudent)
    x_valid = task.x[valid] if alone else task.x

    def measure() -> float:
        found = logits_of(module, x_valid, task.incidence)
        return accuracy(found if alone else found[valid], task.y[valid])

    return train_full_batch(
        module,
        loss,
        measure if len(valid) else None,
        epochs=steps.epochs,
        learning_rate=steps.learning_rate,
        weight_decay=steps.weight_decay,
    )
