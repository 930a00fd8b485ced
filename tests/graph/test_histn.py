"""HiSTN: sizes, the official arithmetic, the graph operators, constraints, precisions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from keras_histn import count, forward, into_torch, random_weights

from graphrec import create_model
from graphrec.errors import ConfigError, DataError
from graphrec.graph.eeg import HiSTN, WindowBatch, gaussian_labels, histn_3, histn_5
from graphrec.graph.eeg.layers import temporal_conv
from graphrec.kernels import CSR, edge_softmax, spmm
from graphrec.pipelines.eeg import EPOC, EPOC3, EPOC5, Montage


def sizes(module: torch.nn.Module) -> tuple[int, int]:
    """Trained weights, and with them the running means and variances."""
    trained = sum(p.numel() for p in module.parameters())
    running = sum(b.numel() for name, b in module.state_dict().items() if "running_" in name)
    return trained, trained + running


def test_published_sizes() -> None:
    model = create_model("histn", EPOC, 5)
    assert sizes(model) == (1181, 1265)
    weights = random_weights(np.random.default_rng(0), (4, 3, 3, 4), (2,) * 4, 2, 5)
    assert count(weights) == 1265
    parts = {
        "temporal.kernel": 512,
        "temporal.mix": 112,
        "temporal.depthwise": 70,
        "exchange.filters": 12,
        "region_filter": 3,
        "fuse.": 64,
        "fuse_after": 64,
        "collapse.": 20,
        "collapse_after": 20,
        "output": 100,
    }
    for start, expected in parts.items():
        found = sum(p.numel() for name, p in model.named_parameters() if name.startswith(start))
        assert found == expected, start


@pytest.mark.parametrize(
    ("build", "montage", "hops", "region_hops"),
    [
        (lambda: HiSTN(EPOC, 5), EPOC, (2, 2, 2, 2), 2),
        (histn_3, EPOC3, (3, 3, 3), 1),
        (histn_5, EPOC5, (1, 2, 1, 2, 1), 2),
    ],
)
@pytest.mark.parametrize("samples", [128, 131, 37])
def test_equals_the_official_arithmetic(
    build: Any, montage: Montage, hops: tuple[int, ...], region_hops: int, samples: int
) -> None:
    rng = np.random.default_rng(samples)
    groups = [len(region.channels) for region in montage.regions]
    weights = random_weights(rng, groups, hops, region_hops, 5)
    x = rng.normal(size=(3, samples, 14))
    adjacency = [montage.adjacency(i).double().numpy() for i in range(len(groups))]
    expected = forward(x, weights, montage.bounds, adjacency, montage.region_adjacency().double().numpy())
    model = build().double().eval()
    into_torch(model, weights)
    found = model.predict(WindowBatch(torch.from_numpy(x), torch.zeros(3, dtype=torch.long)))
    assert expected.std(0).max() > 1e-2, "the windows differ"
    assert np.abs(found.detach().numpy() - expected).max() < 1e-6


def test_adjacency_is_that_of_the_official_scripts() -> None:
    """Entries that the scripts set to 1, above the diagonal."""
    official = {
        "four": (EPOC, [[(0, 2), (1, 2), (1, 3), (2, 3)], [(0, 1), (1, 2)], [(0, 1), (1, 2)], None], 4),
        "five": (EPOC5, [[(0, 1), (0, 2), (1, 2)], [(0, 1), (1, 2)], [(0, 1)], [(0, 1), (1, 2)], None], 5),
        "three": (
            EPOC3,
            [[(0, 2), (1, 2), (1, 3), (2, 3), (3, 4)], [(0, 1), (1, 2), (2, 3)], None],
            3,
        ),
    }
    for montage, regions, count_ in official.values():
        assert montage.channels == EPOC.channels
        for i, pairs in enumerate(regions):
            found = montage.adjacency(i)
            if pairs is None:  # the mirror image of the first region
                assert torch.equal(found, montage.adjacency(0).flip(0, 1))
                continue
            expected = torch.zeros_like(found)
            for a, b in pairs:
                expected[a, b] = expected[b, a] = 1
            assert torch.equal(found, expected)
        ring = montage.region_adjacency()
        expected = torch.zeros_like(ring)
        for a in range(count_):
            expected[a, (a + 1) % count_] = expected[(a + 1) % count_, a] = 1
        assert torch.equal(ring, expected)


def test_equals_the_graph_operators() -> None:
    """Chebyshev's recursion by products over edges, and gates by a softmax over the edges of regions."""
    torch.manual_seed(0)
    model = HiSTN(EPOC, 5).double()
    for region, one in enumerate(model.exchange.filters):
        adjacency = EPOC.adjacency(region).double()
        laplacian = adjacency.sum(1).diag() - adjacency
        scaled = 2 * laplacian / torch.linalg.eigvalsh(laplacian).max() - torch.eye(len(adjacency))
        row, column = scaled.nonzero().T
        graph, order = CSR.from_edges(column.int(), row.int(), len(adjacency), len(adjacency))
        edge = scaled[row, column][order.long()]
        x = torch.randn(len(adjacency), 6, dtype=torch.float64)
        terms = [x, spmm(graph, x, edge)]
        for _ in range(len(one.weight) - 2):
            terms.append(2 * spmm(graph, terms[-1], edge) - terms[-2])
        expected = sum(w * t for w, t in zip(one.weight, terms, strict=True))
        assert torch.allclose(one(x[:, None])[:, 0], expected, atol=1e-6)
    signals = torch.randn(14, 3, 20, dtype=torch.float64)
    found, weights = model.fuse(signals)
    logits = torch.cat(
        [
            layer(part)
            for layer, part in zip(model.fuse.layers, signals.mean(2).T.split([4, 3, 3, 4], 1), strict=True)
        ],
        1,
    )
    members = CSR(torch.tensor(EPOC.bounds, dtype=torch.int32), torch.arange(14, dtype=torch.int32), 14)
    assert torch.allclose(edge_softmax(members, logits.T.contiguous()).T, weights)
    for b in range(3):
        assert torch.allclose(spmm(members, signals[:, b], weights[b]), found[:, b])


def test_gates_sum_to_one() -> None:
    _, gates = HiSTN(EPOC, 5).eval().levels(torch.randn(4, 14, 64))
    for weights in gates[:2]:
        assert torch.allclose(
            torch.stack([p.sum(1) for p in weights.split([4, 3, 3, 4], 1)]), torch.ones(4, 4)
        )
    for weights in gates[2:]:
        assert torch.allclose(weights.sum(1), torch.ones(4))


@pytest.mark.parametrize(
    ("time", "taps", "padding"),
    [(1, 1, (0, 0)), (300, 64, (31, 32)), (128, 5, (0, 0)), (7, 64, (31, 32)), (129, 2, (0, 1))],
)
def test_temporal_conv(time: int, taps: int, padding: tuple[int, int]) -> None:
    x = torch.randn(3, 2, time, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(3, taps, dtype=torch.float64, requires_grad=True)
    padded = torch.nn.functional.pad(x.transpose(0, 1), padding)
    expected = torch.nn.functional.conv1d(padded, kernel[:, None], groups=3).transpose(0, 1)
    found = temporal_conv(x, kernel, padding)
    assert torch.allclose(found, expected)
    out = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, (x, kernel), out),
        torch.autograd.grad(expected, (x, kernel), out),
        strict=True,
    ):
        assert torch.allclose(ours, theirs)


def test_smoothed_labels() -> None:
    found = gaussian_labels(5, 0.5)
    e = np.exp(-2.0)  # a neighbour: exp(-1 / (2 * 0.25))
    inner = np.array([e**4, e, 1, e, e**4])
    assert np.allclose(found[2], inner / inner.sum(), atol=1e-6)
    assert found[2].tolist() == pytest.approx([0.000264, 0.10645, 0.78657, 0.10645, 0.000264], abs=1e-5)
    assert found[0].tolist() == pytest.approx([0.88054, 0.11917, 0.000295, 0, 0], abs=1e-5)
    assert torch.allclose(found.sum(1), torch.ones(5))
    assert torch.equal(gaussian_labels(3, 0), torch.eye(3))
    with pytest.raises(ConfigError, match="label_smoothing=-1"):
        gaussian_labels(3, -1)


def test_loss_is_the_weighted_cross_entropy_to_smoothed_labels() -> None:
    model = HiSTN(EPOC, 5, dropout=0.0).eval()
    x, labels = torch.randn(4, 128, 14), torch.tensor([0, 2, 4, 1])
    logs = model(x.transpose(1, 2)).log_softmax(1)
    rows = -(gaussian_labels(5, 0.5)[labels] * logs).sum(1)
    assert torch.allclose(model.training_loss(WindowBatch(x, labels)), rows.mean())
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
    assert torch.allclose(model.training_loss(WindowBatch(x, labels, weights)), (weights * rows).sum() / 4)


def test_constraints_are_kerass() -> None:
    """Norms go along a kernel's first axis: time in (5, 1, C, 1), nothing in (1, 8, C, 1) and (1, n, n)."""
    model = HiSTN(EPOC, 5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(3 * torch.randn_like(weight))
    before = {name: w.clone() for name, w in model.named_parameters()}
    model.constrain()
    for name, w in model.named_parameters():
        if name == "temporal.depthwise":
            norms = before[name].norm(dim=1, keepdim=True)
            assert torch.allclose(w, torch.where(norms > 1, before[name] / norms, before[name]))
        elif name == "temporal.mix" or name.startswith("exchange.pointwise"):
            assert torch.equal(w, before[name].clamp(-1, 1))
        else:
            assert torch.equal(w, before[name]), name


def test_every_weight_gets_a_gradient_and_precisions_agree() -> None:
    torch.manual_seed(1)
    model = HiSTN(EPOC, 3, dropout=0.0)
    batch = WindowBatch(torch.randn(16, 128, 14), torch.arange(16) % 3)
    model.training_loss(batch).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())
    model.eval()
    exact = model.double()(batch.x.double().transpose(1, 2)).detach()
    single = model.float()(batch.x.transpose(1, 2)).detach()
    assert exact.dtype == torch.float64
    assert float((single - exact).norm() / exact.norm()) < 1e-5
    with torch.autocast("cpu", torch.bfloat16):
        half = model(batch.x.transpose(1, 2)).double().detach()
    assert float((half - exact).norm() / exact.norm()) < 3e-2


def test_one_electrode_and_one_region() -> None:
    single = Montage.from_regions({"top": ["Cz"], "back": ["O1", "O2"]})
    assert HiSTN(single, 2).eval()(torch.randn(1, 3, 6)).shape == (1, 2)
    whole = Montage.from_regions({"all": ["A", "B", "C"]})
    assert torch.isfinite(HiSTN(whole, 2).eval()(torch.randn(2, 3, 6))).all()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="gives 3 numbers for 4 regions"):
        HiSTN(EPOC, 5, hops=(1, 2, 3))
    with pytest.raises(ConfigError, match="hops=0"):
        HiSTN(EPOC, 5, hops=0)
    with pytest.raises(ConfigError, match="kernels=0"):
        HiSTN(EPOC, 5, kernels=0)
    for shape in ((2, 13, 128), (2, 14, 5), (14, 128)):
        with pytest.raises(DataError, match="14 electrodes, 6 or more samples"):
            HiSTN(EPOC, 5)(torch.zeros(shape))
