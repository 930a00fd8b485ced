"""Models that multiply features equal references that are built from the layers of FuxiCTR 2.3."""

from __future__ import annotations

import pytest
import torch
from parity_links import (
    DIM,
    FIELDS,
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

from graphrec.pipelines.tables.features import FeatureSpec

pytestmark = pytest.mark.parity


class Gated(nn.Module):
    """The structures of GDCN: cross layers whose products are gated by sigmoids."""

    def __init__(self, structure: str) -> None:
        super().__init__()
        self.structure = structure
        self.cross = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.gates = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
        self.mlp = fuxi.MLP_Block(WIDTH, [8, 4]) if structure != "cross" else None
        self.head = nn.Linear({"parallel": WIDTH + 4, "stacked": 4, "cross": WIDTH}[structure], 1)

    def forward(self, x: Tensor) -> Tensor:
        crossed = x
        for cross, gate in zip(self.cross, self.gates, strict=True):
            crossed = crossed + x * cross(crossed) * torch.sigmoid(gate(crossed))
        if self.structure == "parallel":
            crossed = torch.cat([crossed, self.mlp(x)], dim=-1)  # type: ignore[misc]
        elif self.structure == "stacked":
            crossed = self.mlp(crossed)  # type: ignore[misc]
        return self.head(crossed)


@pytest.mark.parametrize("structure", ["parallel", "stacked", "cross"])
def test_gdcn(structure: str) -> None:
    model = make("gdcn", structure=structure, num_layers=2, hidden_units=(8, 4))
    network = Gated(structure)
    reference = Deep(model.spec, network)
    links = [*embedding_links(model.embedding, reference.embedding), *linear_links(model.head, network.head)]
    for ours, theirs in ((model.cross.layers, network.cross), (model.cross.gates, network.gates)):
        for mine, other in zip(ours, theirs, strict=True):
            links += linear_links(mine, other)
    if network.mlp is not None:
        links += mlp_links(model.mlp, network.mlp)
    check(model, reference, links)


class Masked(nn.Module):
    """A mask block: the mask's two layers, and a layer with normalisation."""

    def __init__(self, inputs: int, units: int, ratio: float, norm: bool) -> None:
        super().__init__()
        self.mask = fuxi.MLP_Block(WIDTH, [int(inputs * ratio)], output_dim=inputs)
        self.linear = nn.Linear(inputs, units, bias=False)
        self.norm = nn.LayerNorm(units) if norm else None

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        out = self.linear(self.mask(x) * hidden)
        return torch.relu(out if self.norm is None else self.norm(out))


class Masks(nn.Module):
    """MaskNet: two blocks of 8 and 4 units in both structures."""

    def __init__(self, structure: str, ratio: float, norm: bool) -> None:
        super().__init__()
        self.serial = structure == "serial"
        self.norms = nn.ModuleList(nn.LayerNorm(DIM) for _ in range(len(FIELDS) if norm else 0))
        second = 8 if self.serial else WIDTH
        self.blocks = nn.ModuleList([Masked(WIDTH, 8, ratio, norm), Masked(second, 4, ratio, norm)])
        self.head = nn.Linear(4, 1) if self.serial else fuxi.MLP_Block(12, [5], output_dim=1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x
        if len(self.norms):
            fields = x.split(DIM, dim=1)
            hidden = torch.cat([norm(v) for norm, v in zip(self.norms, fields, strict=True)], dim=1)
        if not self.serial:
            return self.head(torch.cat([block(x, hidden) for block in self.blocks], dim=1))
        for block in self.blocks:
            hidden = block(x, hidden)
        return self.head(hidden)


@pytest.mark.parametrize(("ratio", "norm"), [(1.0, True), (0.5, False)])
@pytest.mark.parametrize("structure", ["parallel", "serial"])
def test_masknet(structure: str, ratio: float, norm: bool) -> None:
    options = {"block_units": (8, 4), "hidden_units": (5,), "mask_ratio": ratio}
    model = make("masknet", structure=structure, embedding_norm=norm, layer_norm=norm, **options)
    network = Masks(structure, ratio, norm)
    reference = Deep(model.spec, network)
    links = [*embedding_links(model.embedding, reference.embedding), *mlp_links(model.head, network.head)]
    for i, theirs in enumerate(network.norms):
        links += [Link(model.norm.weight, theirs.weight, i), Link(model.norm.bias, theirs.bias, i)]
    for mine, other in zip(model.blocks, network.blocks, strict=True):
        links += [*mlp_links(mine.mask, other.mask), *linear_links(mine.linear, other.linear)]
        if norm:
            links += linear_links(mine.norm, other.norm)
    check(model, reference, links)


class Compressed(nn.Module):
    """xDeepFM: first-order weights, a compressed interaction network and an MLP."""

    def __init__(self, spec: FeatureSpec, bias: bool) -> None:
        super().__init__()
        self.embedding = embedding(spec)
        self.first = fuxi.LogisticRegression(feature_map(spec))
        self.cin = fuxi.CompressedInteractionNet(len(spec.fields), [4, 3, 2])
        self.mlp = fuxi.MLP_Block(WIDTH, [8, 4], output_dim=1, batch_norm=True)
        absent = [self.cin.fc.bias, *([] if bias else [layer.bias for layer in self.cin.cin_layer.values()])]
        for parameter in absent:
            nn.init.zeros_(parameter.requires_grad_(False))

    def forward(self, columns: dict[str, Tensor]) -> Tensor:
        vectors = self.embedding(columns)
        return self.first(columns) + self.cin(vectors) + self.mlp(vectors.flatten(1))


@pytest.mark.parametrize("bias", [False, True])
def test_xdeepfm(bias: bool) -> None:
    model = make("xdeepfm", cin_units=(4, 3, 2), cin_bias=bias, hidden_units=(8, 4), batch_norm=True)
    reference = Compressed(model.spec, bias)
    links = [
        *embedding_links(model.embedding, reference.embedding),
        *embedding_links(model.linear.weights, reference.first.embedding_layer),
        Link(model.linear.bias, reference.first.bias),
        Link(model.cin.head.weight, reference.cin.fc.weight),
        *mlp_links(model.mlp, reference.mlp),
    ]
    for ours, theirs in zip(model.cin.layers, reference.cin.cin_layer.values(), strict=True):
        links.append(Link(ours.weight, theirs.weight))
        if bias:
            links.append(Link(ours.bias, theirs.bias))
    check(model, reference, links)
