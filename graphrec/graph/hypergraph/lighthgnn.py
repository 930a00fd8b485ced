"""LightHGNN: hypergraph networks distilled into perceptrons that need no hypergraph.

"LightHGNN: Distilling Hypergraph Neural Networks into MLPs for 100x Faster Inference", Feng, Luo, Ying and
Gao, ICLR 2024, arXiv:2402.04296. Official code: https://github.com/iMoonLab/LightHGNN at 6835031, Apache-2.0.

A teacher reads features X and incidences H, a student X alone. Its loss is

    lambda CE(labels) + (1 - lambda) (mean_v KL(teacher_v || student_v) + mean_e KL(teacher_e || student_e))

where the last term is LightHGNN+'s: soft labels of a hyperedge are the mean of its vertices', and e runs over
hyperedges drawn afresh at each step with probability 1 - rho_e / max rho; rho_e is how much the mean entropy
of a hyperedge's vertices changes when the features are disturbed (paper, section 3.3).

The official code hands ``kl_div(..., log_target=True)`` a probability, so that what it minimises is
``sum exp(t) (t - log s)`` and not KL; ``official_arithmetic=True`` does the same, and divides probabilities
rather than logits by the temperature, as it does. Both choose lambda = 0, temperature 1 and noise 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.errors import ConfigError
from graphrec.kernels import segment_reduce
from graphrec.registry import Card, register_model

from ..linears import Linear
from ..rows import Features, disturb, project
from .incidence import Incidence

_CHUNK = 1 << 22
"""Numbers of gathered rows at a time."""


@register_model(
    Card(
        "lighthgnn",
        "hypergraph",
        "LightHGNN: Distilling Hypergraph Neural Networks into MLPs for 100x Faster Inference",
        "https://arxiv.org/abs/2402.04296",
        "https://github.com/iMoonLab/LightHGNN",
        "Apache-2.0",
        multi_label=False,
        verified={
            "the student takes the teacher's knowledge where a perceptron fails": (
                "tests/graph/test_hypergraph_classifier.py::test_student_learns_what_a_perceptron_cannot"
            ),
            "losses by hand, true and official": "tests/graph/test_lighthgnn.py::test_soft_labels",
            "sampling probabilities by hand": "tests/graph/test_lighthgnn.py::test_reliability_by_hand",
        },
        differs="true KL unless official_arithmetic=True; no empty hyperedge is drawn",
    )
)
class LightStudent(nn.Module):
    """The deployed student: linear, ReLU, batch normalisation, dropout, linear.

    Args:
        in_channels: Width of the features.
        num_classes: Of the output.
        hidden: Width between.
        dropout: Share of the hidden numbers that training leaves out.
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, hidden: int = 128, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Linear(in_channels, hidden), nn.ReLU(), nn.BatchNorm1d(hidden), nn.Dropout(dropout)
        )
        self.head = nn.Linear(hidden, num_classes)

    def embed(self, x: Features) -> Tensor:
        """(N, C) to (N, hidden)."""
        found: Tensor = self.body[1:](project(self.body[0], x))  # type: ignore[arg-type]
        return found

    def forward(self, x: Features) -> Tensor:
        """Logits, (N, C) to (N, classes)."""
        logits: Tensor = self.head(self.embed(x))
        return logits


@dataclass(frozen=True)
class Reliability:
    """How much a teacher can be trusted hyperedge by hyperedge.

    Attributes:
        entropy: Mean entropy of each hyperedge's vertices in the teacher's eyes, (M,).
        change: How much disturbed features change it, (M,).
        probability: Of being drawn, 1 - change / largest change, (M,); 0 for an empty hyperedge, and 1 for
            all others where nothing changes.
    """

    entropy: Tensor
    change: Tensor
    probability: Tensor


def entropies(logits: Tensor) -> Tensor:
    """Entropy in nats of each row's softmax, (N, C) to (N,)."""
    log = F.log_softmax(logits, dim=1)
    return -(log.exp() * log).sum(1)


def edge_entropy(logits: Tensor, incidence: Incidence) -> Tensor:
    """Mean entropy of each hyperedge's vertices, logits (N, C) to (M,)."""
    return incidence.edge_mean(entropies(logits).unsqueeze(1)).squeeze(1)


def reliability_of(calm: Tensor, disturbed: Tensor, incidence: Incidence) -> Reliability:
    """From a teacher's logits on the features and on disturbed ones, (N, C) each."""
    entropy = edge_entropy(calm, incidence)
    change = (edge_entropy(disturbed, incidence) - entropy).abs()
    largest = change.max() if len(change) else change.sum()
    share = change / largest if float(largest) > 0 else torch.zeros_like(change)
    return Reliability(entropy, change, torch.where(incidence.edge_degree > 0, 1 - share, 0))


@torch.no_grad()
def hyperedge_reliability(
    teacher: nn.Module, x: Features, incidence: Incidence, *, noise: float = 1.0
) -> Reliability:
    """Reliability from one disturbance of the features, X (1 + N(0, 1)) noise, as the official code has it.

    Args:
        teacher: ``teacher(x, incidence) -> (N, C)`` logits; left in evaluation mode.
        x: (N, F).
        incidence: Of the hypergraph.
        noise: Factor on the disturbed features; 1 in both official configurations.
    """
    teacher.eval()
    return reliability_of(teacher(x, incidence), teacher(disturb(x, noise), incidence), incidence)


def soft_label_loss(
    student: Tensor, teacher: Tensor, *, temperature: float = 1.0, official_arithmetic: bool = False
) -> Tensor:
    """LightHGNN's term: mean over vertices of KL(teacher || student).

    Args:
        student: Logits, (N, C).
        teacher: Logits, (N, C).
        temperature: Divides the logits of both; the official code has none here.
        official_arithmetic: See the module.
    """
    if official_arithmetic:
        log = F.log_softmax(student, dim=1)
        return F.kl_div(log, F.softmax(teacher, dim=1), reduction="batchmean", log_target=True)
    log_s, log_t = (F.log_softmax(z / temperature, dim=1) for z in (student, teacher))
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)


def high_order_loss(
    student: Tensor,
    teacher: Tensor,
    incidence: Incidence,
    kept: Tensor,
    *,
    temperature: float = 1.0,
    official_arithmetic: bool = False,
) -> Tensor:
    """LightHGNN+'s term: mean over drawn hyperedges of KL between their mean soft labels.

    Args:
        student: Logits, (N, C).
        teacher: Logits, (N, C).
        incidence: Of the hypergraph.
        kept: Which hyperedges were drawn, bool (M,); none of them empty. Without any the loss is 0.
        temperature: Divides the logits; with the official arithmetic, the mean probabilities.
        official_arithmetic: See the module.
    """
    if not bool(kept.any()):
        return student.sum() * 0
    heat = 1.0 if official_arithmetic else temperature
    both = torch.cat([F.softmax(student / heat, dim=1), F.softmax(teacher / heat, dim=1)], dim=1)
    s, t = incidence.edge_mean(both)[kept].chunk(2, dim=1)
    s = s.clamp(min=torch.finfo(s.dtype).tiny)
    if official_arithmetic:
        log = torch.log(s / temperature)
        return F.kl_div(log, t / temperature, reduction="batchmean", log_target=True)
    return F.kl_div(s.log(), t, reduction="batchmean")


@dataclass(frozen=True)
class Distillation:
    """The student's loss, step after step.

    Args:
        teacher: Its logits on the training hypergraph, (N, C).
        incidence: Of the hypergraph.
        reliability: Of its hyperedges, for LightHGNN+; None for LightHGNN.
        label_weight: Lambda, the labels' share of the loss; 0 in the official configurations.
        temperature: See `soft_label_loss` and `high_order_loss`.
        official_arithmetic: See the module.

    Raises:
        ConfigError: Lambda is not between 0 and 1, or the temperature not positive.
    """

    teacher: Tensor
    incidence: Incidence
    reliability: Reliability | None = None
    label_weight: float = 0.0
    temperature: float = 1.0
    official_arithmetic: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.label_weight <= 1:
            raise ConfigError(f"label_weight={self.label_weight}: must lie between 0 and 1")
        if not self.temperature > 0:
            raise ConfigError(f"temperature={self.temperature}: must be positive")

    def loss(self, student: Tensor, y: Tensor, train: Tensor) -> Tensor:
        """Of logits (N, C), classes (N,) and the indices of vertices whose labels may be used."""
        how = {"temperature": self.temperature, "official_arithmetic": self.official_arithmetic}
        soft = soft_label_loss(student, self.teacher, **how)  # type: ignore[arg-type]
        if self.reliability is not None:
            kept = torch.bernoulli(self.reliability.probability).bool()
            soft = soft + high_order_loss(student, self.teacher, self.incidence, kept, **how)  # type: ignore[arg-type]
        if self.label_weight == 0:
            return soft
        hard = F.cross_entropy(student[train], y[train])
        return self.label_weight * hard + (1 - self.label_weight) * soft


@torch.no_grad()
def topology_score(embedding: Tensor, incidence: Incidence) -> float:
    """Mean over hyperedges of the mean distance between its vertices and their mean; 0 is fully smoothed.

    Empty hyperedges do not count. Equals the official ``ho_topology_score``.

    Args:
        embedding: (N, D).
        incidence: Of the hypergraph; its weights do not matter.

    Returns:
        Not negative; nan without any hyperedge that holds a vertex.
    """
    graph = incidence.to_edges
    plain = Incidence(graph)
    centre, step = plain.edge_mean(embedding), max(1, _CHUNK // max(embedding.shape[1], 1))
    parts = [
        (embedding[vertex] - centre[edge]).norm(dim=1)
        for vertex, edge in zip(graph.index.split(step), graph.row.split(step), strict=True)
    ]
    distance = torch.cat(parts) if parts else embedding.new_zeros(0)
    return float(segment_reduce(distance, graph.ptr, "mean")[graph.degree > 0].mean())
