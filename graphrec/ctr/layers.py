"""Blocks that several CTR models share.

Symbols: B batch, F fields, d embedding width, D = F d, T labels, L list length, h heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphrec.errors import ConfigError
from graphrec.pipelines.tables.features import Features, FeatureSpec
from graphrec.training.dropout import Dropout

from .embedding import LOG_ODDS_PRIOR, FusedEmbedding
from .flat_fields import FlatFields, dense, linear


def at_least_one(**counts: int) -> None:
    """Refuse options that count something and are not positive.

    Raises:
        ConfigError: Names the first such option.
    """
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"{name}: {count} is too few; use a positive integer")


class BatchNorm(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` that takes a training batch of one row, whose statistics do not exist.

    Such a row, the last one of an epoch for instance, is normalised by the running statistics.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] == 1:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(x)


class Dice(nn.Module):
    """Data adaptive activation of DIN (Zhou et al., KDD 2018, arXiv 1706.06978, eq. 4).

    ``f(s) = p(s) s + (1 - p(s)) alpha s`` with ``p(s) = sigmoid((s - E[s]) / sqrt(Var[s] + eps))``.

    Args:
        width: Number of units.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = BatchNorm(width, affine=False, eps=1e-9, momentum=0.01)
        self.alpha = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(n, width) to (n, width)."""
        share = torch.sigmoid(self.norm(x))
        return x * (share + self.alpha * (1.0 - share))


_ACTIVATIONS = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


def activation(name: str, width: int) -> nn.Module:
    """An activation by name: relu, leaky_relu, gelu, silu, sigmoid, tanh, prelu, dice.

    Raises:
        ConfigError: The name is unknown.
    """
    if name == "dice":
        return Dice(width)
    if name == "prelu":
        return nn.PReLU(width, init=0.1)
    if name not in _ACTIVATIONS:
        raise ConfigError(
            f"activation: there is no {name!r}; use {', '.join([*_ACTIVATIONS, 'prelu', 'dice'])}"
        )
    return _ACTIVATIONS[name]()


class MLP(nn.Sequential):
    """Linear layers, each followed by batch normalisation (optional), an activation and dropout.

    Args:
        width: Input width.
        hidden: Widths of the hidden layers; none leaves the identity, or one linear layer with ``out``.
        out: Width of a last linear layer without activation; None for no such layer.
        activation_name: See `activation`.
        dropout: Dropout rate after each hidden layer.
        batch_norm: Normalise before each activation.

    Attributes:
        out_features: Width of the output.
    """

    def __init__(
        self,
        width: int,
        hidden: Sequence[int],
        *,
        out: int | None = None,
        activation_name: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        layers: list[nn.Module] = []
        for units in hidden:
            layers.append(nn.Linear(width, units))
            if batch_norm:
                layers.append(BatchNorm(units))
            layers.append(activation(activation_name, units))
            if dropout > 0:
                layers.append(Dropout(dropout))
            width = units
        if out is not None:
            layers.append(nn.Linear(width, out))
        super().__init__(*layers)
        self.out_features = width if out is None else out

    def forward(self, x: Tensor | FlatFields) -> Tensor:
        """(n, width) to (n, out_features)."""
        if isinstance(x, Tensor):
            return super().forward(x)
        layers = iter(self)
        first = next(layers, None)
        found = x.dense() if first is None else linear(first, x)
        for layer in layers:
            found = layer(found)
        return found


def xavier_normal(module: nn.Module) -> None:
    """Redraw every linear layer: weights Glorot normal, biases zero (FuxiCTR's initialisation)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class LinearTerms(nn.Module):
    """First-order part: one weight per feature and label, and a bias: ``w_0 + sum_i w_i x_i``.

    Args:
        spec: Fields and labels.
        std: Standard deviation of the weights' initialisation.
    """

    def __init__(self, spec: FeatureSpec, *, std: float = 0.0) -> None:
        super().__init__()
        self.weights = FusedEmbedding(spec, len(spec.labels), init_std=std, prior=LOG_ODDS_PRIOR)
        self.bias = nn.Parameter(torch.zeros(len(spec.labels)))

    def forward(self, features: Features) -> Tensor:
        """(B, T)."""
        return self.weights(features).sum(1) + self.bias


class FactorPairs(nn.Module):
    """Second-order part of a factorisation machine, by the sum-of-squares identity (Rendle 2010, eq. 5).

    ``sum_{i<j} <v_i, v_j> = 1/2 sum_f ((sum_i v_if)^2 - sum_i v_if^2)``. With several labels each weighs
    the d terms of the outer sum by its own vector, which starts at one; with one label there is none.

    Args:
        dim: Embedding width d.
        n_labels: Labels T.
    """

    def __init__(self, dim: int, n_labels: int) -> None:
        super().__init__()
        self.label_weight = nn.Parameter(torch.ones(dim, n_labels)) if n_labels > 1 else None

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, F, d) to (B, T)."""
        terms = 0.5 * (vectors.sum(1).square() - vectors.square().sum(1))  # (B, d)
        return terms.sum(1, keepdim=True) if self.label_weight is None else terms @ self.label_weight


class _CrossStep(torch.autograd.Function):
    """``x + first * mapped``: `torch.addcmul` whose gradient takes two products instead of four."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, first: Tensor, mapped: Tensor) -> Tensor:
        ctx.save_for_backward(first, mapped)
        return torch.addcmul(x, first, mapped)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first, mapped = ctx.saved_tensors
        return grad, grad * mapped, grad * first


class CrossNetV2(nn.Module):
    """Cross network of DCN-V2 (Wang et al., WWW 2021, arXiv 2008.13535, eq. 1).

    ``x_{l+1} = x_0 * (W_l x_l + b_l) + x_l``. A subclass may put something else than the linear map into
    the product: `factor`.

    Args:
        width: Input width D.
        num_layers: Layers.
    """

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        at_least_one(num_layers=num_layers)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(num_layers))

    def forward(self, fields: Tensor | FlatFields) -> Tensor:
        """(B, D) to (B, D); under autocast in its dtype, since products with x_0 are bound by memory."""
        x = dense(fields)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        first = x
        step = torch.addcmul if torch.compiler.is_compiling() else _CrossStep.apply
        source = x if isinstance(fields, Tensor) else fields
        for number in range(len(self.layers)):
            source = x = step(x, first, self.factor(number, source))
        return x

    def factor(self, number: int, x: Tensor | FlatFields) -> Tensor:
        """What layer ``number`` multiplies with x_0, (B, D), from its input of either form."""
        return linear(self.layers[number], x)

    def kernels(self) -> list[Tensor]:
        """The (D, D) matrices W_l."""
        return [layer.get_parameter("weight") for layer in self.layers]


def attention_weights(query: Tensor, key: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """``softmax(scale Q K^T)``: (B, h, n, d') and (B, h, m, d') to (B, h, n, m).

    Args:
        query: (B, h, n, d').
        key: (B, h, m, d').
        scale: Factor of the scores.
        mask: (B, m) bool, true for real keys; a row without any gets zero weights.
    """
    scores = (query * scale) @ key.transpose(-1, -2)
    if mask is None:
        return scores.softmax(-1)
    real = mask[:, None, None, :]
    scores = scores.masked_fill(~real, torch.finfo(scores.dtype).min)
    return scores.softmax(-1) * real.to(scores.dtype)


def field_scale(vectors: Tensor) -> Tensor:
    """Root mean square norm of each field's vector over a batch: (B, F, d) to (F,)."""
    return vectors.float().square().sum(-1).mean(0).sqrt()


def cross_importance(kernels: Sequence[Tensor], vectors: Tensor, factors: Tensor | None = None) -> Tensor:
    """Importance of field pairs in cross layers (block norms as in DCN-V2, section 7, by the fields' sizes).

    Args:
        kernels: Matrices of (F, a, F, b): how the vector of field j enters the product with field i.
        vectors: (B, F, d) embeddings of the rows to explain.
        factors: (B, F, d), what the maps of the embeddings multiply; the embeddings themselves when None.

    Returns:
        (F, F): the Frobenius norm of block (i, j), averaged over the layers, times both fields' norms.
    """
    norms = torch.stack([k.float().square().sum((1, 3)).sqrt() for k in kernels]).mean(0)
    scale = field_scale(vectors)
    return norms * (scale if factors is None else field_scale(factors))[:, None] * scale
