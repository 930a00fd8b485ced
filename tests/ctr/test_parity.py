"""Models equal references that are built from the layers of FuxiCTR 2.3, on copied random weights.

A reference is an ordinary module in this file; see `parity_links` for what is compared.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity_links import (
    DIM,
    FIELDS,
    HISTORY,
    ROWS,
    WIDTH,
    Deep,
    Link,
    check,
    embedding,
    embedding_links,
    feature_map,
    fuxi,
    linear_links,
    make,
    mlp_links,
)
from torch import Tensor, nn

from graphrec.ctr.dcnv2 import CrossMixture
from graphrec.pipelines.tables.features import FeatureSpec

pytestmark = pytest.mark.parity


class Wide(nn.Module):
    """First-order weights, optionally pairs, optionally an MLP."""

    def __init__(self, spec: FeatureSpec, pairs: bool = False, hidden: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.first = fuxi.LogisticRegression(feature_map(spec))
        self.embedding = embedding(spec) if pairs else None
        self.pairs = fuxi.InnerProductInteraction(len(spec.fields), output="product_sum") if pairs else None
        width = DIM * len(spec.fields)
        self.mlp = fuxi.MLP_Block(width, list(hidden), output_dim=1, batch_norm=True) if hidden else None

    def forward(self, columns: dict[str, Tensor]) -> Tensor:
        logits = self.first(columns)
        if self.embedding is not None:
            vectors = self.embedding(columns)
            logits = logits + self.pairs(vectors)
            if self.mlp is not None:
                logits = logits + self.mlp(vectors.flatten(1))
        return logits


def first_order_links(linear: Any, bias: Any, reference: Wide) -> list[Link]:
    return [*embedding_links(linear, reference.first.embedding_layer), Link(bias, reference.first.bias)]


def test_lr() -> None:
    model = make("lr")
    reference = Wide(model.spec)
    check(model, reference, first_order_links(model.embedding, model.bias, reference))


def test_fm() -> None:
    model = make("fm")
    reference = Wide(model.spec, pairs=True)
    links = first_order_links(model.linear.weights, model.linear.bias, reference)
    check(model, reference, [*links, *embedding_links(model.embedding, reference.embedding)])


def test_deepfm() -> None:
    model = make("deepfm", hidden_units=(8, 4), batch_norm=True)
    reference = Wide(model.spec, pairs=True, hidden=(8, 4))
    links = first_order_links(model.linear.weights, model.linear.bias, reference)
    links += [*embedding_links(model.embedding, reference.embedding), *mlp_links(model.mlp, reference.mlp)]
    check(model, reference, links)


class FieldWeighted(nn.Module):
    """FwFM: strengths of pairs, and a linear layer or first-order weights."""

    def __init__(self, spec: FeatureSpec, linear: str) -> None:
        super().__init__()
        count = len(spec.fields)
        self.embedding = embedding(spec)
        self.products = fuxi.InnerProductInteraction(count, output="inner_product")
        self.strength = nn.Linear(count * (count - 1) // 2, 1, bias=True)
        self.field = nn.Linear(count * DIM, 1, bias=False) if linear == "field" else None
        self.feature = embedding(spec, 1, use_pretrain=False) if linear == "feature" else None

    def forward(self, columns: dict[str, Tensor]) -> Tensor:
        vectors = self.embedding(columns)
        pairs = self.strength(self.products(vectors))
        if self.feature is not None:
            return pairs + self.feature(columns).sum(1)
        return pairs + self.field(vectors.flatten(1))  # type: ignore[misc]


@pytest.mark.parametrize("linear", ["field", "feature"])
def test_fwfm(linear: str) -> None:
    model = make("fwfm", linear=linear)
    reference = FieldWeighted(model.spec, linear)
    links = [*embedding_links(model.embedding, reference.embedding)]
    links += [
        Link(model.pairs.strength, reference.strength.weight),
        Link(model.linear.bias, reference.strength.bias),
    ]
    if linear == "field":
        links.append(Link(model.linear.weight, reference.field.weight))
    else:
        links += embedding_links(model.linear.weights, reference.feature)
    check(model, reference, links)


@pytest.mark.parametrize("activation", ["relu", "dice"])
def test_dnn(activation: str) -> None:
    model = make("dnn", hidden_units=(8, 4), batch_norm=True, activation=activation)
    network = fuxi.MLP_Block(WIDTH, [8, 4], activation, output_dim=1, batch_norm=True)
    reference = Deep(model.spec, network)
    links = [*embedding_links(model.embedding, reference.embedding), *mlp_links(model.mlp, network)]
    check(model, reference, links)


class Crossed(nn.Module):
    """The three structures of DCN-V2."""

    def __init__(self, structure: str) -> None:
        super().__init__()
        self.structure = structure
        self.cross = fuxi.CrossNetV2(WIDTH, 2)
        self.mlp = fuxi.MLP_Block(WIDTH, [8, 4]) if structure != "cross" else None
        self.head = nn.Linear({"parallel": WIDTH + 4, "stacked": 4, "cross": WIDTH}[structure], 1)

    def forward(self, x: Tensor) -> Tensor:
        crossed = self.cross(x)
        if self.structure == "parallel":
            crossed = torch.cat([crossed, self.mlp(x)], dim=-1)  # type: ignore[misc]
        elif self.structure == "stacked":
            crossed = self.mlp(crossed)  # type: ignore[misc]
        return self.head(crossed)


@pytest.mark.parametrize("structure", ["parallel", "stacked", "cross"])
def test_dcnv2(structure: str) -> None:
    model = make("dcnv2", structure=structure, num_layers=2, hidden_units=(8, 4))
    network = Crossed(structure)
    reference = Deep(model.spec, network)
    links = [*embedding_links(model.embedding, reference.embedding), *linear_links(model.head, network.head)]
    for ours, theirs in zip(model.cross.layers, network.cross.cross_layers, strict=True):
        links += linear_links(ours, theirs)
    if network.mlp is not None:
        links += mlp_links(model.mlp, network.mlp)
    check(model, reference, links)


def test_cross_mixture() -> None:
    torch.manual_seed(0)
    ours, theirs = (
        CrossMixture(WIDTH, 2, 3, 4),
        fuxi.CrossNetMix(WIDTH, layer_num=2, low_rank=3, num_experts=4),
    )
    links = [Link(ours.gate.weight, gate.weight, i) for i, gate in enumerate(theirs.gating)]
    for mine, other in (("expand", "U_list"), ("reduce", "V_list"), ("core", "C_list"), ("bias", "bias")):
        pairs = zip(getattr(ours, mine), getattr(theirs, other), strict=True)
        links += [Link(a, b) for a, b in pairs]
    with torch.no_grad():
        for link in links:
            link.ours.normal_(0, 0.3)
        for link in links:
            link.theirs.copy_(link.ours[link.index].reshape(link.theirs.shape))
    x = torch.randn(ROWS, WIDTH)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)
    for module in (ours, theirs):
        module(x).square().mean().backward()
    for link in links:
        gradient = link.ours.grad[link.index].reshape(link.theirs.shape)  # type: ignore[index]
        torch.testing.assert_close(gradient, link.theirs.grad, atol=1e-5, rtol=1e-5)


class TwoStreams(nn.Module):
    """FinalMLP with its gates and fusion; the fusion is one bilinear form per head."""

    def __init__(
        self, spec: FeatureSpec, contexts: tuple[tuple[str, ...], tuple[str, ...]], heads: int
    ) -> None:
        super().__init__()
        self.embedding, self.contexts, self.heads = embedding(spec), contexts, heads
        self.streams = nn.ModuleList(fuxi.MLP_Block(WIDTH, [8, 4]) for _ in range(2))
        self.gates = nn.ModuleList(
            fuxi.MLP_Block(DIM * max(1, len(c)), [5], output_dim=WIDTH, output_activation="Sigmoid")
            for c in contexts
        )
        self.context = nn.ModuleList(
            embedding(spec, required_feature_columns=list(c)) if c else nn.Identity() for c in contexts
        )
        self.constant = nn.ParameterList(nn.Parameter(torch.zeros(1, DIM)) for c in contexts if not c)
        self.linear = nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1, bias=False)])
        self.forms = nn.ModuleList(nn.Bilinear(4 // heads, 4 // heads, 1, bias=False) for _ in range(heads))

    def forward(self, columns: dict[str, Tensor]) -> Tensor:
        x, constants, streams = self.embedding(columns).flatten(1), iter(self.constant), []
        for names, context, gate, stream in zip(
            self.contexts, self.context, self.gates, self.streams, strict=True
        ):
            seen = context(columns).flatten(1) if names else next(constants).expand(len(x), -1)
            streams.append(stream(x * 2 * gate(seen)))
        logits = self.linear[0](streams[0]) + self.linear[1](streams[1])
        parts = zip(streams[0].chunk(self.heads, 1), streams[1].chunk(self.heads, 1), self.forms, strict=True)
        return logits + sum(form(left, right) for left, right, form in parts)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("contexts", [((), ()), (("a",), ("item", "x", "tags"))], ids=["learned", "fields"])
def test_finalmlp(contexts: tuple[tuple[str, ...], tuple[str, ...]], heads: int) -> None:
    options = {
        "hidden_units1": (8, 4),
        "hidden_units2": (8, 4),
        "gate_hidden_units": (5,),
        "num_heads": heads,
    }
    model = make("finalmlp", context1=contexts[0], context2=contexts[1], **options)
    reference = TwoStreams(model.spec, contexts, heads)
    links = [*embedding_links(model.embedding, reference.embedding)]
    links += [*mlp_links(model.mlp1, reference.streams[0]), *mlp_links(model.mlp2, reference.streams[1])]
    constants = iter(reference.constant)
    for i, gate in enumerate((model.gate1, model.gate2)):
        links += mlp_links(gate.mlp, reference.gates[i])
        if contexts[i]:
            links += embedding_links(gate.embedding, reference.context[i])
        else:
            links.append(Link(gate.constant, next(constants)))
    fusion = model.fusion
    links += [
        *linear_links(fusion.left, reference.linear[0]),
        *linear_links(fusion.right, reference.linear[1]),
    ]
    links += [Link(fusion.weight, form.weight, h) for h, form in enumerate(reference.forms)]
    check(model, reference, links)


class Interacting(nn.Module):
    """An interacting layer of AutoInt from four projections, in the paper's or the official form."""

    def __init__(self, width: int, heads: int, head_dim: int, paper: bool) -> None:
        super().__init__()
        self.heads, self.head_dim, self.paper = heads, head_dim, paper
        self.maps = nn.ModuleList(nn.Linear(width, heads * head_dim, bias=not paper) for _ in range(4))
        self.attention = fuxi.ScaledDotProductAttention()
        self.norm = nn.Identity() if paper else nn.LayerNorm(heads * head_dim, eps=1e-8)

    def forward(self, x: Tensor) -> Tensor:
        maps = [m(x) if self.paper else m(x).relu() for m in self.maps]
        split = [m.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2) for m in maps[:3]]
        out, _ = self.attention(*split, scale=None if self.paper else self.head_dim**0.5)
        return self.norm((out.transpose(1, 2).flatten(2) + maps[3]).relu())


class Attentive(nn.Module):
    """AutoInt of two layers, and an MLP for AutoInt+."""

    def __init__(self, spec: FeatureSpec, paper: bool, hidden: list[int]) -> None:
        super().__init__()
        self.embedding = embedding(spec)
        self.layers = nn.Sequential(Interacting(DIM, 2, 5, paper), Interacting(10, 2, 5, paper))
        self.head = nn.Linear(10 * len(spec.fields), 1)
        self.mlp = fuxi.MLP_Block(WIDTH, hidden, output_dim=1) if hidden else None

    def forward(self, columns: dict[str, Tensor]) -> Tensor:
        vectors = self.embedding(columns)
        logits = self.head(self.layers(vectors).flatten(1))
        return logits if self.mlp is None else logits + self.mlp(vectors.flatten(1))


@pytest.mark.parametrize("paper", [False, True])
@pytest.mark.parametrize("hidden", [(), (8, 4)], ids=["autoint", "autoint_plus"])
def test_autoint(paper: bool, hidden: tuple[int, ...]) -> None:
    name = "autoint_plus" if hidden else "autoint"
    model = make(name, num_layers=2, num_heads=2, head_dim=5, paper=paper, hidden_units=hidden)
    reference = Attentive(model.spec, paper, list(hidden))
    links = [
        *embedding_links(model.embedding, reference.embedding),
        *linear_links(model.head, reference.head),
    ]
    for ours, theirs in zip(model.layers, reference.layers, strict=True):
        for i, projection in enumerate(theirs.maps):
            links += linear_links(ours.project, projection, slice(10 * i, 10 * (i + 1)))
        if not paper:
            links += linear_links(ours.norm, theirs.norm)
    if hidden:
        links += mlp_links(model.mlp, reference.mlp)
    check(model, reference, links)


class Interest(nn.Module):
    """DIN with one history, whose items share the table of the target."""

    def __init__(self, spec: FeatureSpec, softmax: bool) -> None:
        super().__init__()
        self.embedding = fuxi.FeatureEmbeddingDict(feature_map(spec), DIM)
        self.attention = fuxi.DIN_Attention(DIM, [5], "Dice", use_softmax=softmax)
        self.mlp = fuxi.MLP_Block(WIDTH + DIM, [8], "Dice", output_dim=1)

    def forward(self, columns: dict[str, Tensor]) -> Tensor:
        vectors = self.embedding(columns)
        mask = columns["history"] != 0
        vectors["history"] = self.attention(vectors["item"], vectors["history"], mask)
        return self.mlp(self.embedding.dict2tensor(vectors, flatten_emb=True))


@pytest.mark.parametrize("softmax", [False, True])
def test_din(softmax: bool) -> None:
    fields = (*FIELDS, HISTORY)
    model = make("din", fields=fields, attention_units=(5,), hidden_units=(8,), softmax=softmax)
    reference = Interest(model.spec, softmax)
    links = [*embedding_links(model.embedding, reference.embedding)]
    links += mlp_links(model.attention[0].mlp, reference.attention.attention_layer)
    links += mlp_links(model.mlp, reference.mlp)
    check(model, reference, links)


class Tasks(nn.Module):
    """Shared-Bottom (one expert, no gate) and MMoE."""

    def __init__(self, labels: int, experts: int, gates: list[int] | None) -> None:
        super().__init__()
        self.experts = nn.ModuleList(fuxi.MLP_Block(WIDTH, [8, 4], batch_norm=True) for _ in range(experts))
        self.gates = nn.ModuleList()
        if gates is not None:
            self.gates.extend(
                fuxi.MLP_Block(WIDTH, gates, output_dim=experts, batch_norm=True) for _ in range(labels)
            )
        self.towers = nn.ModuleList(
            fuxi.MLP_Block(4, [3], output_dim=1, batch_norm=True) for _ in range(labels)
        )

    def forward(self, x: Tensor) -> Tensor:
        outputs = torch.stack([expert(x) for expert in self.experts], dim=1)
        mixed = [outputs[:, 0] for _ in self.towers]
        if len(self.gates):
            mixed = [(gate(x).softmax(-1)[..., None] * outputs).sum(1) for gate in self.gates]
        return torch.cat([tower(m) for tower, m in zip(self.towers, mixed, strict=True)], dim=1)


def task_links(model: Any, reference: Deep, experts: list[nn.Module]) -> list[Link]:
    network = reference.network
    links = [*embedding_links(model.embedding, reference.embedding)]
    ours = [*experts, *getattr(model, "gates", []), *model.towers]
    for mine, other in zip(ours, [*network.experts, *network.gates, *network.towers], strict=True):
        links += mlp_links(mine, other)
    return links


def test_shared_bottom() -> None:
    model = make("shared_bottom", 2, bottom_units=(8, 4), tower_units=(3,), batch_norm=True)
    reference = Deep(model.spec, Tasks(2, 1, None))
    check(model, reference, task_links(model, reference, [model.bottom]))


@pytest.mark.parametrize("gates", [(), (5,)])
def test_mmoe(gates: tuple[int, ...]) -> None:
    options = {"expert_units": (8, 4), "gate_units": gates, "tower_units": (3,), "batch_norm": True}
    model = make("mmoe", 2, num_experts=3, **options)
    reference = Deep(model.spec, Tasks(2, 3, list(gates)))
    check(model, reference, task_links(model, reference, list(model.experts)))
