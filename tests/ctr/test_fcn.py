"""FCN against tensors recorded from the official code, and its published size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ctr_tables import dense, make_batch, make_spec
from safetensors.torch import load_file
from torch import Tensor, nn

from graphrec.ctr import ECN, FCN, LCN
from graphrec.ctr.fcn import CrossNetwork, two_views
from graphrec.errors import ConfigError
from graphrec.pipelines.tables.features import Batch, Features, FeatureSpec, Field

RECORD = load_file(Path(__file__).parent / "data" / "fcn_official.safetensors")
SPEC = FeatureSpec(
    (
        Field("a", "categorical", size=5),
        Field("b", "categorical", size=4),
        Field("c", "categorical", size=6),
        Field("g", "multi", size=7, length=3),
    )
)
FEATURES = Features(RECORD["ids"], torch.empty(6, 0), (RECORD["items"],))
BATCH = Batch(FEATURES, RECORD["labels"])
CASES = [(heads, norm) for heads in (1, 2) for norm in (0, 1)]
NETWORKS = {"ECN": "dfc", "LCN": "sfc"}


def names(network: str, layers: int, norm: bool) -> dict[str, str]:
    """Our parameter name within a `CrossNetwork` by the official one."""
    found = {}
    for i in range(layers):
        found |= {
            f"{network}.w.{i}.weight": f"layers.{i}.linear.weight",
            f"{network}.b.{i}": f"layers.{i}.bias",
        }
        for part in ("batch_norm", "layer_norm") if norm else ():
            for kind in ("weight", "bias"):
                found[f"{network}.{part}.{i}.{kind}"] = f"layers.{i}.{part}.{kind}"
    head = NETWORKS[network]
    return found | {f"{network}.{head}.{kind}": f"head.{kind}" for kind in ("weight", "bias")}


def fill(network: CrossNetwork, kind: str, case: str) -> None:
    with torch.no_grad():
        for official, ours in names(kind, len(network.layers), case.endswith("n1")).items():
            network.get_parameter(ours).copy_(RECORD[f"{case}.weight.{official}"])


def compare(network: CrossNetwork, kind: str, case: str, tag: str) -> None:
    for official, ours in names(kind, len(network.layers), case.endswith("n1")).items():
        gradient = network.get_parameter(ours).grad
        assert gradient is not None
        close(gradient, RECORD[f"{case}.{tag}.{official}"])


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def recorded_fcn(heads: int, norm: int) -> FCN:
    options = {
        "batch_norm": bool(norm),
        "layer_norm": bool(norm),
        "deep_dropout": 0.0,
        "shallow_dropout": 0.0,
    }
    model = FCN(SPEC, embedding_dim=4, num_heads=heads, deep_layers=2, shallow_layers=2, **options)
    fill(model.deep, "ECN", f"h{heads}.n{norm}")
    fill(model.shallow, "LCN", f"h{heads}.n{norm}")
    with torch.no_grad():
        model.embedding.weight.copy_(RECORD[f"h{heads}.n{norm}.embedding"])
    return model


@pytest.mark.parametrize(("heads", "norm"), CASES)
def test_equals_the_official_code(heads: int, norm: int) -> None:
    case = f"h{heads}.n{norm}"
    model = recorded_fcn(heads, norm)
    deep, shallow = model.parts(FEATURES)
    close(deep, RECORD[f"{case}.deep"])
    close(shallow, RECORD[f"{case}.shallow"])

    model = recorded_fcn(heads, norm)  # the forward pass above moved the running statistics
    loss = model.training_loss(BATCH)
    close(loss[None], RECORD[f"{case}.loss"])
    loss.backward()
    compare(model.deep, "ECN", case, "grad")
    compare(model.shallow, "LCN", case, "grad")
    close(dense(model.embedding.weight.grad), RECORD[f"{case}.grad.embedding"])  # type: ignore[arg-type]
    close(model.eval()(FEATURES), RECORD[f"{case}.eval"])


@pytest.mark.parametrize(("build", "kind", "tag"), [(ECN, "ECN", "ecn_grad"), (LCN, "LCN", "lcn_grad")])
def test_single_networks_equal_the_official_code(build: type[LCN], kind: str, tag: str) -> None:
    model = build(SPEC, embedding_dim=4, num_heads=2, num_layers=2, dropout=0.0)
    fill(model.network, kind, "h2.n1")
    with torch.no_grad():
        model.embedding.weight.copy_(RECORD["h2.n1.embedding"])
    close(model(FEATURES), RECORD["h2.n1." + {"ECN": "deep", "LCN": "shallow"}[kind]])
    model.training_loss(BATCH).backward()
    compare(model.network, kind, "h2.n1", tag)
    close(dense(model.embedding.weight.grad), RECORD[f"h2.n1.{tag}.embedding"])  # type: ignore[arg-type]


def test_detached_weights_change_the_gradient_but_not_the_loss() -> None:
    model = recorded_fcn(2, 1)
    loss = model.training_loss(BATCH)
    model.detach_weights = True
    detached = recorded_fcn(2, 1)
    detached.detach_weights = True
    cut = detached.training_loss(BATCH)
    close(loss, cut)
    loss.backward()
    cut.backward()
    ours, theirs = model.deep.head.weight.grad, detached.deep.head.weight.grad
    assert ours is not None
    assert theirs is not None
    assert (ours - theirs).abs().max() > 1e-2


def test_movielens_parameter_count() -> None:
    """The official ML-1M log: 201,728 parameters, of which 9,751 rows of 16 are embeddings."""
    sizes = {"UserID": 6041, "Gender": 3, "Age": 8, "Occupation": 22, "MovieID": 3648, "Release": 10}
    fields = [Field(name, "categorical", size=size) for name, size in sizes.items()]
    spec = FeatureSpec((*fields, Field("Genres", "multi", size=9751 - sum(sizes.values()), length=5)))
    model = FCN(spec, deep_layers=3, shallow_layers=4, num_heads=1, batch_norm=True, layer_norm=True)
    assert model.embedding.weight.numel() == 9751 * 16
    assert sum(p.numel() for p in model.deep.layers[0].parameters()) == 6498
    assert sum(p.numel() for p in model.parameters()) == 201_728


def test_initialisation_is_the_official_one() -> None:
    """Glorot normal weights, zero head bias, cross biases in U(0, 1), embeddings in N(0, 1e-4)."""
    torch.manual_seed(0)
    model = FCN(FeatureSpec(tuple(Field(f"f{i}", "categorical", size=500) for i in range(20))))
    for network in (model.deep, model.shallow):
        for layer in network.layers:
            weight = layer.linear.weight
            assert weight.std().item() == pytest.approx((2 / (320 + 160)) ** 0.5, rel=0.02)
            assert 0 <= layer.bias.min() < 0.05
            assert 0.95 < layer.bias.max() <= 1
        assert network.head.bias.item() == 0
        assert network.head.weight.std().item() == pytest.approx((2 / 321) ** 0.5, rel=0.15)
    assert model.embedding.weight.std().item() == pytest.approx(1e-4, rel=0.02)


def test_two_views_puts_first_halves_first() -> None:
    """(B, F, H d) = (1, 2, 2 * 4): heads, then halves, then fields, then d / 2."""
    vectors = torch.arange(16.0).view(1, 2, 8)
    expected = [[0, 1, 8, 9, 2, 3, 10, 11], [4, 5, 12, 13, 6, 7, 14, 15]]
    assert two_views(vectors, 2)[0].tolist() == expected


@pytest.mark.parametrize(("exponential", "degree"), [(True, 8), (False, 4)])
def test_order_of_interactions(exponential: bool, degree: int) -> None:
    """With the mask shut, three layers are a polynomial of degree 2^3 (exponential) or 3 + 1 (linear)."""
    network = CrossNetwork(
        2, 3, 1, exponential=exponential, heads=1, batch_norm=False, layer_norm=True, dropout=0.0
    ).double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.fill_({"layer_norm.weight": 0.0, "layer_norm.bias": -1.0}.get(name[9:], 1.0))
    sizes = [torch.full((1, 1, 2), 10.0**k, dtype=torch.double) for k in (6, 7)]
    small, large = (network(x).abs().log10().item() for x in sizes)
    assert large - small == pytest.approx(degree, abs=1e-3)


def test_field_pairs_come_from_their_blocks() -> None:
    """With all cross weights zero but those of field 2 in the products of field 0, only that pair matters."""
    spec = make_spec(*(Field(n, "categorical", size=4) for n in "abc"))
    model = LCN(spec, embedding_dim=4, num_layers=1, embedding_std=1.0)
    layer = model.network.layers[0]
    assert isinstance(layer.linear, nn.Linear)
    with torch.no_grad():
        layer.linear.weight.zero_()
        layer.linear.weight.view(3, 2, 2, 3, 2)[0, :, :, 2] = (
            1.0  # (field, half width) x (half, field, half width)
        )
    pairs = model.field_interactions(make_batch(spec, 8).features)
    assert pairs[0, 2] > 0
    assert pairs.count_nonzero() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_dim": 5}, "embedding_dim: 5 is odd"),
        ({"num_heads": 0}, "num_heads: 0 is too few"),
        ({"deep_layers": 0}, "num_layers: 0 is too few"),
    ],
)
def test_mistakes_are_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FCN(SPEC, **options)
