"""BST (Chen, Zhao, Li, Huang, Ou: Behavior Sequence Transformer, DLP-KDD 2019, arXiv 1905.06874).

Idea: the candidate is appended to the user's history and a transformer runs over both, so items see each
other, and their order counts; what it makes of the candidate joins the other fields in an MLP.

    E = items [e_1, ..., e_n, e_target], each with the vector of its position appended
    S = LayerNorm(E + Dropout(MH(E))),  MH(E) = [head_1 || ... || head_h] W_H                 (eq. 2, 5)
    head_i = softmax(E W_Q (E W_K)^T / sqrt(d_k)) E W_V                                       (eq. 1, 3)
    F = LayerNorm(S + Dropout(LeakyReLU(S W_1 + b_1) W_2 + b_2)), b such blocks               (eq. 6 to 8)
    logit = MLP([other fields || F_target])

Positions: the paper takes the time from each click to the recommendation; tables seldom have times of
single clicks, so here, as in FuxiCTR, a learned vector says how many places back from the candidate an item
is: the candidate itself 0, the latest item 1. Counted from this end it does not change with the padding or
the length of the history. Like items these vectors start from N(0, embedding_std), where FuxiCTR's start as
sines; the deviation is larger than in our other models, as what LayerNorm hands on beside the fields is of
size 1.

Official code: none. The inner width of the feed-forward part, which the paper does not give, is that of its
input, as in FuxiCTR; the projections of attention have no biases, as in the paper, where FuxiCTR's have. The
paper hands on the candidate's output, so the last block makes only this one; FuxiCTR by default the mean over
items and candidate, ``pooling="mean"``. FuxiCTR's options of causal attention and of dropout of attention
weights are left out. A sequence is matched with the categorical field whose vocabulary it shares, or by
``targets``; each has a transformer of its own unless ``joint``, and one without such a field is mean-pooled.
With several labels the last MLP has one output per label.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphrec.errors import ConfigError
from graphrec.kernels import attention, split_heads
from graphrec.pipelines.tables.features import Features, FeatureSpec
from graphrec.registry import Card, register_model
from graphrec.training.dropout import Dropout

from .base import CTRModel
from .layers import MLP, at_least_one, xavier_normal
from .targets import MatchedSequences

Pooling = Literal["target", "mean"]

_CARD = Card(
    name="bst",
    task="ctr",
    title="BST: Behavior Sequence Transformer for E-commerce Recommendation in Alibaba (DLP-KDD 2019)",
    paper="https://arxiv.org/abs/1905.06874",
    published={"Taobao AUC": 0.7894},
    verified={
        "parity with FuxiCTR's layers": "tests/ctr/test_parity_sequences.py::test_bst",
        "the paper's equations, item by item": "tests/ctr/test_bst.py::test_paper_equations",
        "the order of the history is used": "tests/ctr/test_bst.py::test_the_order_of_the_history_is_learned",
    },
    differs="Positions count items back from the candidate; the paper's are the time since each click.",
    uses=("sequence",),
)


class TransformerBlock(nn.Module):
    """Self-attention and a feed-forward part, each with a residual connection and normalised after it.

    Args:
        width: Token width w.
        heads: Heads h, a divisor of w.
        dropout: Dropout rate of both parts' outputs.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.join = nn.Linear(width, width, bias=False)
        self.feed_forward = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(), nn.Linear(width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = Dropout(dropout)

    def forward(self, queries: Tensor, tokens: Tensor, real: Tensor) -> Tensor:
        """Queries (B, n, w), tokens (B, L, w) and which of those are real, (B, L) bool, to (B, n, w)."""
        (query,) = split_heads(self.query(queries), self.heads, 1)
        key, value = split_heads(self.key_value(tokens), self.heads, 2)
        hidden = torch.zeros_like(real, dtype=query.dtype)
        hidden = hidden.masked_fill(~real, torch.finfo(query.dtype).min)[:, None, None]
        attended = attention(query, key, value, bias=hidden)  # [B, h, n, w / h]
        x = self.norms[0](queries + self.dropout(self.join(attended.transpose(1, 2).flatten(2))))
        return self.norms[1](x + self.dropout(self.feed_forward(x)))


class SequenceTransformer(nn.Module):
    """Positions and blocks over a history with its candidate at the end.

    Args:
        width: Width of an item.
        position: Width of a position's vector.
        length: Items L, at most.
        blocks: Blocks.
        heads: Heads, a divisor of the sum of both widths.
        dropout: See `TransformerBlock`.
        std: Standard deviation of the positions' initialisation.
        pooling: Give the candidate's output, or the mean over it and the real items.

    Attributes:
        out_features: Width w of the output, the sum of both widths.

    Raises:
        ConfigError: The heads do not divide the width.
    """

    def __init__(
        self,
        width: int,
        position: int,
        length: int,
        *,
        blocks: int,
        heads: int,
        dropout: float,
        std: float,
        pooling: Pooling,
    ) -> None:
        super().__init__()
        self.out_features = width + position
        if self.out_features % heads:
            raise ConfigError(
                f"num_heads: {heads} does not divide {self.out_features}, "
                "the width of an item with its position"
            )
        self.pooling = pooling
        self.position = nn.Parameter(torch.randn(length + 1, position) * std)
        self.blocks = nn.ModuleList(
            TransformerBlock(self.out_features, heads, dropout) for _ in range(blocks)
        )

    def forward(self, target: Tensor, items: Tensor, mask: Tensor) -> Tensor:
        """(B, width), (B, L, width) and (B, L) bool to (B, w)."""
        real = functional.pad(mask, (0, 1), value=True)
        back = real.flip(1).cumsum(1).flip(1) - 1  # real items from here to the candidate, [B, L + 1]
        tokens = torch.cat([items, target[:, None]], dim=1)
        x = torch.cat([tokens, functional.embedding(back, self.position)], dim=2)
        for number, block in enumerate(self.blocks, 1):
            only = self.pooling == "target" and number == len(self.blocks)
            x = block(x[:, -1:] if only else x, x, real)
        if self.pooling == "target":
            return x.squeeze(1)
        weights = real.to(x.dtype)
        return torch.einsum("bl,blw->bw", weights, x) / weights.sum(1, keepdim=True)


@register_model(_CARD)
class BST(CTRModel):
    """A transformer over each sequence with its candidate, then an MLP.

    Args:
        spec: Fields and labels, with at least one sequence field.
        embedding_dim: Embedding width d, also of positions.
        embedding_std: Standard deviation of the embeddings' and positions' initialisation.
        targets: Categorical field that is the candidate of each sequence; by shared vocabulary when None.
        joint: Let sequences of one length share one transformer on their concatenated items (such as the ids
            and the categories of the same clicks), as the paper does.
        num_blocks: Transformer blocks.
        num_heads: Attention heads.
        pooling: ``"target"`` hands on what the transformer makes of the candidate, ``"mean"`` the mean over
            candidate and items.
        hidden_units: Widths of the final MLP.
        activation: Its activation.
        dropout: Dropout rate in the blocks and in the final MLP.
        batch_norm: Batch normalisation in the final MLP.

    Raises:
        ConfigError: No sequence has a target, the heads do not divide a width, or the pooling is unknown.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        embedding_dim: int = 16,
        embedding_std: float = 0.1,
        targets: dict[str, str] | None = None,
        joint: bool = False,
        num_blocks: int = 1,
        num_heads: int = 4,
        pooling: Pooling = "target",
        hidden_units: tuple[int, ...] = (200, 80),
        activation: str = "leaky_relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(spec, embedding_dim=embedding_dim, embedding_std=embedding_std, sequences=False)
        at_least_one(num_blocks=num_blocks, num_heads=num_heads)
        if pooling not in get_args(Pooling):
            raise ConfigError(f"pooling: there is no {pooling!r}; use {', '.join(get_args(Pooling))}")
        self.sequences = MatchedSequences("bst", spec, targets, joint)
        common: dict[str, Any] = {"blocks": num_blocks, "heads": num_heads, "dropout": dropout}
        transformers = [
            SequenceTransformer(
                embedding_dim * len(group),
                embedding_dim,
                spec.lists[group[0]].length,
                std=embedding_std,
                pooling=pooling,
                **common,
            )
            for group in self.sequences.groups
        ]
        self.transformers = nn.ModuleList(transformers)
        width = self.flat_dim + embedding_dim * len(self.sequences.pooled)
        self.mlp = MLP(
            width + sum(one.out_features for one in transformers),
            hidden_units,
            out=self.n_labels,
            activation_name=activation,
            dropout=dropout,
            batch_norm=batch_norm,
        )
        xavier_normal(self)

    def forward(self, features: Features) -> Tensor:
        """Logits (B, T)."""
        return self.mlp(self.sequences.read(self.embedding, features, self.transformers))
