"""Pooling and classifier of models whose state is a sequence of tokens."""

from __future__ import annotations

from timm.layers import trunc_normal_
from torch import Tensor, nn

from graphrec.errors import ConfigError

from .normed import Linear


class SequenceHead(nn.Module):
    """Classifier of tokens (B, prefix + N, C), used as timm's heads are.

    Args:
        dim: Channels of a token.
        num_classes: Classes; 0 leaves the pooled features.
        pool_type: "token" takes the first token, "avg" the mean of those after the prefix, "" all of them.
        drop_rate: Dropout before the classifier.
        prefix: Tokens before those of the patches.

    Raises:
        ConfigError: Another pooling.
    """

    def __init__(
        self, dim: int, num_classes: int, pool_type: str = "token", drop_rate: float = 0.0, prefix: int = 1
    ) -> None:
        super().__init__()
        self.num_features, self.prefix = dim, prefix
        self.drop = nn.Dropout(drop_rate)
        self.reset(num_classes, pool_type)

    def reset(self, num_classes: int, pool_type: str | None = None) -> None:
        """A fresh classifier; ``pool_type`` as for the constructor, unchanged if None."""
        if pool_type not in (None, "", "avg", "token"):
            raise ConfigError(f"global_pool: {pool_type!r} is not 'token', 'avg' or ''")
        self.pool_type: str = self.pool_type if pool_type is None else pool_type
        self.fc: nn.Module = nn.Identity()
        if num_classes:
            self.fc = Linear(self.num_features, num_classes)
            trunc_normal_(self.fc.weight, std=0.02)
            nn.init.zeros_(self.fc.bias)

    def pool(self, x: Tensor) -> Tensor:
        """(B, C) from tokens (B, N, C); the tokens themselves where nothing pools them."""
        if self.pool_type == "token":
            return x[:, 0]
        return x[:, self.prefix :].mean(1) if self.pool_type == "avg" else x

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (B, classes), or what the classifier would see."""
        x = self.drop(self.pool(x))
        return x if pre_logits else self.fc(x)
