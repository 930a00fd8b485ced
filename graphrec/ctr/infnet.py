"""INFNet (Li, Mao, Tang, Cheng, Zeng, Wang, Liu, Jiang: INFNet, arXiv 2508.11565).

Idea: categorical fields, behaviour sequences and tasks are three groups of tokens. Full attention between
them is dear, so each group is summarised by a few proxy tokens: proxies and tasks attend to the *other*
groups' tokens (heterogeneous), then each group is gated by its own proxies (homogeneous, PGU).

Tokens X in {C (B, M, d), S (B, L, d), T (B, N_task, d)}, proxies X~; T is learned, and
    C~ = reshape(MLP(flatten C)),  S~_a = sum over the items s of sequence a of phi(s),  T~ learned
Block, with CA(Q, K) = softmax(Q W_Q (K W_K)^T / sqrt(d_k)) K W_V, weights of its own for each use:
    X~' = X~ + sum over the other groups Y of CA(X~, Y),   T^ = T + CA(T, C) + CA(T, S)
    X' = X + PGU(X, X~'),   PGU(X, X~) = X * sigmoid(MLP(flatten X~)), one gate in R^d for all tokens
where T^ takes the place of T in the last line.
Output: logit_t = MLP_t(T_t); loss: the average of the tasks' cross-entropies.

Official code: none. Choices where the paper is silent or contradicts itself, each an option:
``residual`` (its prose says residual connections, no equation has one; without, proxies lose their content
and gates only shrink), ``previous_proxies`` (its equations gate by the block's input proxies, its prose by
the new ones, the default), ``num_heads`` (not stated), widths of the MLPs (not given). Numeric fields enter
as value-scaled vectors unless the schema makes buckets of them, as the paper does. The paper sums the tasks'
losses, which here are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graphrec.errors import ConfigError
from graphrec.pipelines.tables.features import Features, FeatureSpec, FieldKind
from graphrec.registry import Card, register_model
from graphrec.training.dropout import Dropout

from .base import CTRModel
from .layers import MLP, at_least_one, attention_weights

FIELDS, ITEMS, TASKS = "field", "item", "task"

_CARD = Card(
    name="infnet",
    task="ctr",
    title="INFNet: A Task-aware Information Flow Network for Large-Scale Recommendation Systems (2025)",
    paper="https://arxiv.org/abs/2508.11565",
    published={
        "KuaiRand-Pure click AUC": 0.7736,
        "KuaiRand-Pure like AUC": 0.8960,
        "KuaiRand-Pure long-view AUC": 0.7727,
        "KuaiRand-27K click AUC": 0.7820,
        "QB-Video click AUC": 0.9749,
    },
    verified={"the paper's equations, token by token": "tests/ctr/test_infnet.py::test_paper_equations"},
    differs="No official code; residual connections and the proxies that gate are options, see the module.",
    uses=("sequence",),
)


class CrossAttention(nn.Module):
    """``softmax(Q W_Q (K W_K)^T / sqrt(d_k)) K W_V`` in heads of width d_k = d / h.

    Args:
        dim: Token width d.
        heads: Heads h.
        dropout: Dropout rate of the attention weights.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, queries: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """(B, n, d) and (B, m, d), of which those with mask (B, m) are real, to (B, n, d)."""
        query, key, value = self._split(self.query(queries)), self.key(tokens), self.value(tokens)
        weights = attention_weights(query, self._split(key), query.shape[-1] ** -0.5, mask)
        return (self.dropout(weights) @ self._split(value)).transpose(1, 2).flatten(2)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, h, n, d_k]


class ProxyGate(nn.Module):
    """Proxy gated unit: ``X * sigmoid(MLP(flatten X~))`` with one gate in R^d for all tokens.

    Args:
        dim: Token width d.
        n_proxies: Proxies m.
        hidden: Hidden widths of the MLP.
    """

    def __init__(self, dim: int, n_proxies: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.mlp = MLP(n_proxies * dim, hidden, out=dim)

    def forward(self, tokens: Tensor, proxies: Tensor) -> Tensor:
        """(B, n, d) and (B, m, d) to (B, n, d)."""
        return tokens * torch.sigmoid(self.mlp(proxies.flatten(1)))[:, None]


class Block(nn.Module):
    """One INFNet block; builds only the parts whose result is used.

    Args:
        dim: Token width d.
        groups: Number of proxies by group of tokens.
        updated: Groups whose proxies a later step reads.
        gated: Groups whose tokens a later step reads.
        heads: Attention heads.
        hidden: Hidden widths of the gates.
        dropout: Dropout rate of the attention weights.
        residual: Residual connections.
        previous_proxies: Gate by the proxies that come in.
    """

    def __init__(
        self,
        dim: int,
        groups: dict[str, int],
        updated: Sequence[str],
        gated: Sequence[str],
        *,
        heads: int,
        hidden: Sequence[int],
        dropout: float,
        residual: bool,
        previous_proxies: bool,
    ) -> None:
        super().__init__()
        self.residual, self.previous_proxies = residual, previous_proxies
        self.proxy_attention = nn.ModuleDict(
            {
                g: nn.ModuleDict({o: CrossAttention(dim, heads, dropout) for o in groups if o != g})
                for g in updated
            }
        )
        others = [o for o in groups if o != TASKS]
        self.task_attention = nn.ModuleDict({o: CrossAttention(dim, heads, dropout) for o in others})
        self.gates = nn.ModuleDict({g: ProxyGate(dim, groups[g], hidden) for g in gated})

    def forward(
        self, tokens: dict[str, Tensor], proxies: dict[str, Tensor], mask: Tensor | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """New tokens and proxies by group; mask (B, L) tells the real items."""
        new = {
            g: self._attend(module, proxies[g], tokens, mask) for g, module in self.proxy_attention.items()
        }
        source = dict(tokens)
        source[TASKS] = self._attend(self.task_attention, tokens[TASKS], tokens, mask)
        gating = proxies if self.previous_proxies else new
        gated = {}
        for group, gate in self.gates.items():
            out = gate(source[group], gating[group])
            gated[group] = source[group] + out if self.residual else out
        return gated, new

    def _attend(
        self, modules: nn.Module, queries: Tensor, tokens: dict[str, Tensor], mask: Tensor | None
    ) -> Tensor:
        assert isinstance(modules, nn.ModuleDict)
        out = queries if self.residual else torch.zeros_like(queries)
        for group, attention in modules.items():
            out = out + attention(queries, tokens[group], mask if group == ITEMS else None)
        return out


@register_model(_CARD)
class INFNet(CTRModel):
    """Token groups that exchange information through proxies, with one task token per label.

    Args:
        spec: Fields and labels; sequence fields become item tokens, all others field tokens.
        embedding_dim: Token width d.
        embedding_std: Standard deviation of the embeddings' and task tokens' initialisation.
        num_blocks: Blocks.
        num_proxies: Proxies m of the field tokens.
        num_shared: Shared task tokens, the proxies of the tasks.
        num_heads: Attention heads, a divisor of d.
        proxy_units: Hidden widths of the MLP that makes the field proxies.
        gate_units: Hidden widths of the gates.
        tower_units: Hidden widths of the output MLPs.
        dropout: Dropout rate of attention weights and output MLPs.
        residual: Residual connections, which the paper's prose names and its equations lack.
        previous_proxies: Gate by the block's input proxies, as the paper's equations write.
        label_weights: Weight of each label's loss; equal when None.

    Raises:
        ConfigError: The heads do not divide the width.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        embedding_dim: int = 16,
        embedding_std: float = 0.01,
        num_blocks: int = 2,
        num_proxies: int = 4,
        num_shared: int = 2,
        num_heads: int = 1,
        proxy_units: tuple[int, ...] = (64,),
        gate_units: tuple[int, ...] = (64,),
        tower_units: tuple[int, ...] = (64,),
        dropout: float = 0.0,
        residual: bool = True,
        previous_proxies: bool = False,
        label_weights: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(
            spec,
            embedding_dim=embedding_dim,
            embedding_std=embedding_std,
            sequences=False,
            label_weights=label_weights,
        )
        at_least_one(
            num_blocks=num_blocks, num_proxies=num_proxies, num_shared=num_shared, num_heads=num_heads
        )
        if embedding_dim % num_heads:
            raise ConfigError(f"num_heads: {num_heads} does not divide embedding_dim {embedding_dim}")
        self._sequences = [i for i, f in enumerate(spec.lists) if f.kind is FieldKind.SEQUENCE]
        counts = {FIELDS: num_proxies if self.n_fields else 0, ITEMS: len(self._sequences), TASKS: num_shared}
        groups = {group: count for group, count in counts.items() if count}
        plan = _plan(list(groups), num_blocks, previous_proxies)
        proxied = {group for updated, gated in plan[:1] for group in (*updated, *gated)}
        self.blocks = nn.ModuleList(
            Block(
                embedding_dim,
                groups,
                updated,
                gated,
                heads=num_heads,
                hidden=gate_units,
                dropout=dropout,
                residual=residual,
                previous_proxies=previous_proxies,
            )
            for updated, gated in plan
        )
        self.task_tokens = nn.Parameter(torch.randn(self.n_labels, embedding_dim) * embedding_std)
        self.shared_tokens = nn.Parameter(torch.randn(num_shared, embedding_dim) * embedding_std)
        self.field_proxies = self.item_proxy = None
        if FIELDS in proxied:
            self.field_proxies = MLP(self.flat_dim, proxy_units, out=num_proxies * embedding_dim)
        if ITEMS in proxied:
            self.item_proxy = nn.Linear(embedding_dim, embedding_dim)
        self.towers = nn.ModuleList(
            MLP(embedding_dim, tower_units, out=1, dropout=dropout) for _ in range(self.n_labels)
        )

    def forward(self, features: Features) -> Tensor:
        """Logits (B, T)."""
        tokens, proxies, mask = self._tokens(features)
        for block in self.blocks:
            tokens, proxies = block(tokens, proxies, mask)
        tasks = tokens[TASKS].unbind(1)
        return torch.cat([tower(task) for tower, task in zip(self.towers, tasks, strict=True)], dim=1)

    def _tokens(self, features: Features) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor | None]:
        """Tokens and proxies by group, and the mask (B, L) of the real items."""
        batch = features.categorical.shape[0]
        tokens = {TASKS: self.task_tokens.expand(batch, -1, -1)}
        proxies, mask = {TASKS: self.shared_tokens.expand(batch, -1, -1)}, None
        if self.n_fields:
            tokens[FIELDS] = self.embedding(features)
            if self.field_proxies is not None:
                flat = self.field_proxies(tokens[FIELDS].flatten(1))
                proxies[FIELDS] = flat.unflatten(1, (-1, self.embedding_dim))
        if self._sequences:
            found = [self.embedding.sequence(features, i) for i in self._sequences]
            tokens[ITEMS] = torch.cat([items for items, _ in found], dim=1)
            mask = torch.cat([real for _, real in found], dim=1)
            if self.item_proxy is not None:
                proxies[ITEMS] = torch.stack([self._pool(*pair) for pair in found], dim=1)
        return tokens, proxies, mask

    def _pool(self, items: Tensor, real: Tensor) -> Tensor:
        assert self.item_proxy is not None
        return torch.einsum("bl,bld->bd", real.to(items.dtype), self.item_proxy(items))


def _plan(groups: list[str], blocks: int, previous_proxies: bool) -> list[tuple[list[str], list[str]]]:
    """Groups whose proxies, and whose tokens, each block renews: after the last only the tasks are read."""
    gated = [groups] * (blocks - 1) + [[TASKS]]
    updated = [*gated[1:], []] if previous_proxies else gated
    return list(zip(updated, gated, strict=True))
