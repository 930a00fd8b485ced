"""What a backbone looks at: attention, class activation, and their pictures."""

from .attention import AttentionMap, attention_maps, attention_rollout
from .cam import class_activation
from .drawing import draw_attention

__all__ = ["AttentionMap", "attention_maps", "attention_rollout", "class_activation", "draw_attention"]
