"""HiSTN's arithmetic written out in numpy, layer by layer, in Keras's layouts: (batch, time, channels).

Derived from the official ``HST_model`` (``mergeMode="dense"``, commit 59a81f3) and from what Keras's layers
compute. Weights are a dictionary in Keras's shapes; `random_weights` draws one and `into_torch` puts it into
our module.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]
EPS = 1e-3


def elu(x: Array) -> Array:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def norm(x: Array, w: dict[str, Array]) -> Array:
    return w["gamma"] * (x - w["mean"]) / np.sqrt(w["var"] + EPS) + w["beta"]


def correlate(x: Array, kernel: Array, padding: str) -> Array:
    """(T,) with (K,): what a convolution layer computes. Keras pads "same" with the smaller half in front."""
    taps = len(kernel)
    if padding == "same":
        x = np.concatenate([np.zeros((taps - 1) // 2), x, np.zeros(taps // 2)])
    return np.array([x[t : t + taps] @ kernel for t in range(len(x) - taps + 1)])


def laplacian_filter(adjacency: Array, weights: Array) -> Array:
    degree = np.diag(adjacency.sum(1))
    laplacian = degree - adjacency
    largest = np.abs(np.linalg.eig(laplacian)[0]).max()
    scaled = 2 * laplacian / largest - np.eye(len(adjacency))
    terms = [np.eye(len(adjacency)), scaled]
    for _ in range(len(weights) - 2):
        terms.append(2 * scaled @ terms[-1] - terms[-2])
    return sum(w * t for w, t in zip(weights, terms, strict=True))


def fuse(x: Array, parts: Sequence[slice], dense: list[tuple[Array, Array]]) -> Array:
    pooled = x.mean(1)
    signals = [
        (x[:, :, p] @ softmax(pooled[:, p] @ kernel + bias)[:, :, None])[:, :, 0]
        for p, (kernel, bias) in zip(parts, dense, strict=True)
    ]
    return np.stack(signals, -1)


def forward(x: Array, w: dict[str, Any], bounds: Sequence[int], adjacency: list[Array], ring: Array) -> Array:
    """Probabilities (B, K) of windows (B, T, C) without dropout."""
    batch, _, channels = x.shape
    parts = [slice(a, b) for a, b in pairwise(bounds)]
    # Conv2D (64, 1, 1, F), then DepthwiseConv2D (1, F, C, 1) over the filters of each channel.
    filters = w["conv"].shape[-1]
    maps = np.zeros((*x.shape, filters))
    for b in range(batch):
        for c in range(channels):
            for f in range(filters):
                maps[b, :, c, f] = correlate(x[b, :, c], w["conv"][:, 0, 0, f], "same")
    x = elu(norm(np.einsum("btcf,fc->btc", maps, w["mix"][0, :, :, 0]), w["norm1"]))
    x = np.stack(
        [
            [correlate(x[b, :, c], w["depthwise"][:, 0, c, 0], "valid") for c in range(channels)]
            for b in range(batch)
        ]
    ).transpose(0, 2, 1)
    x = elu(norm(x, w["norm2"]))
    half = x.shape[1] // 2
    x = (x[:, 0 : 2 * half : 2] + x[:, 1 : 2 * half : 2]) / 2
    # Nodes: MessagePassing, then SeparableConv1D per region.
    aggregated = []
    for i, p in enumerate(parts):
        heard = x[:, :, p] @ laplacian_filter(adjacency[i], w["hops"][i])
        deep = np.stack(
            [
                [
                    correlate(heard[b, :, c], w["separable"][i][0][:, c, 0], "same")
                    for c in range(heard.shape[2])
                ]
                for b in range(batch)
            ]
        ).transpose(0, 2, 1)
        aggregated.append(deep @ w["separable"][i][1][0])
    after = elu(norm(np.concatenate(aggregated, -1), w["norm3"]))
    # Regions and head.
    regions, regions_after = fuse(x, parts, w["fuse"]), fuse(after, parts, w["fuse_latter"])
    everything = [slice(0, len(parts))]
    head = fuse(regions, everything, w["collapse"]) + fuse(regions_after, everything, w["collapse_latter"])
    heard = regions @ laplacian_filter(ring, w["region_hops"]) + regions_after
    fused = np.concatenate([x + after, heard, head], -1)
    return softmax(fused.mean(1) @ w["dense"][0] + w["dense"][1])


def random_weights(
    rng: np.random.Generator, sizes: Sequence[int], hops: Sequence[int], region_hops: int, classes: int
) -> dict[str, Any]:
    channels, regions = sum(sizes), len(sizes)

    def normal(*shape: int) -> Array:
        return rng.normal(size=shape) * 0.5

    def batch_norm() -> dict[str, Array]:
        return {
            "gamma": rng.uniform(0.5, 1.5, channels),
            "beta": normal(channels),
            "mean": normal(channels),
            "var": rng.uniform(0.5, 2.0, channels),
        }

    def dense(n: int, out: int) -> tuple[Array, Array]:
        return normal(n, out), normal(out)

    return {
        "conv": normal(64, 1, 1, 8),
        "mix": normal(1, 8, channels, 1),
        "norm1": batch_norm(),
        "depthwise": normal(5, 1, channels, 1),
        "norm2": batch_norm(),
        "hops": [normal(k + 1) for k in hops],
        "separable": [(normal(5, n, 1), normal(1, n, n)) for n in sizes],
        "norm3": batch_norm(),
        "fuse": [dense(n, n) for n in sizes],
        "fuse_latter": [dense(n, n) for n in sizes],
        "region_hops": normal(region_hops + 1),
        "collapse": [dense(regions, regions)],
        "collapse_latter": [dense(regions, regions)],
        "dense": dense(channels + regions + 1, classes),
    }


def count(w: Any) -> int:
    """Numbers in a tree of arrays."""
    if isinstance(w, np.ndarray):
        return w.size
    return sum(count(v) for v in (w.values() if isinstance(w, dict) else w))


def into_torch(module: Any, w: dict[str, Any]) -> None:
    """Fill a `HiSTN`."""

    def put(target: torch.Tensor, values: Array) -> None:
        assert target.shape == values.shape
        target.data.copy_(torch.from_numpy(np.ascontiguousarray(values)))

    def put_norm(target: Any, values: dict[str, Array]) -> None:
        names = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "var"}
        for ours, theirs in names.items():
            put(getattr(target, ours), values[theirs])

    def put_dense(layers: Any, values: list[tuple[Array, Array]]) -> None:
        for layer, (kernel, bias) in zip(layers, values, strict=True):
            put(layer.weight, kernel.T)
            put(layer.bias, bias)

    put(module.temporal.kernel, w["conv"][:, 0, 0].T)
    put(module.temporal.mix, w["mix"][0, :, :, 0].T)
    put_norm(module.temporal.norm, w["norm1"])
    put(module.temporal.depthwise, w["depthwise"][:, 0, :, 0].T)
    put_norm(module.temporal.norm_after, w["norm2"])
    for one, values in zip(module.exchange.filters, w["hops"], strict=True):
        put(one.weight, values)
    put(module.exchange.depthwise, np.concatenate([d[:, :, 0].T for d, _ in w["separable"]]))
    for one, (_, pointwise) in zip(module.exchange.pointwise, w["separable"], strict=True):
        put(one, pointwise[0].T)
    put_norm(module.exchange.norm, w["norm3"])
    put(module.region_filter.weight, w["region_hops"])
    put_dense(module.fuse.layers, w["fuse"])
    put_dense(module.fuse_after.layers, w["fuse_latter"])
    put_dense(module.collapse.layers, w["collapse"])
    put_dense(module.collapse_after.layers, w["collapse_latter"])
    put_dense([module.output], [w["dense"]])
