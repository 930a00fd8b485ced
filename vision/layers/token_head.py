"""A classifier of one token."""

from __future__ import annotations

from torch import Tensor, nn

from graphrec.errors import ConfigError


class TokenHead(nn.Module):
    """Dropout and a linear layer on a class token (B, C), as timm's heads are used.

    Args:
        dim: Channels of the token.
        num_classes: Classes; 0 leaves the token.
        drop_rate: Dropout before the classifier.
    """

    def __init__(self, dim: int, num_classes: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.num_features = dim
        self.drop = nn.Dropout(drop_rate)
        self.fc: nn.Module = nn.Identity()
        self.reset(num_classes)

    def reset(self, num_classes: int, pool_type: str | None = None) -> None:
        """A fresh classifier.

        Raises:
            ConfigError: A pooling other than that of the class token.
        """
        if pool_type not in (None, "", "token"):
            raise ConfigError(f"global_pool: {pool_type!r}; this model classifies its class token alone")
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        if isinstance(self.fc, nn.Linear):
            nn.init.trunc_normal_(self.fc.weight, std=0.02)
            nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (B, classes), or the token."""
        x = self.drop(x)
        return x if pre_logits else self.fc(x)
