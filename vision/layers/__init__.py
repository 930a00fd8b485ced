"""Building blocks that several backbones share; what timm's layers do well is taken from there.

Maps are (B, C, H, W) or (B, H, W, C), as each says; tokens are (B, N, C).
"""

from .aggregated_attention import AggregatedAttention, CosineAttention, CosineFullAttention
from .attention import GridAttention, shifted_windows
from .batch_normed import NormReLU, gated
from .branches import Branches, BranchHead, BranchNorm, CrossStage
from .conv import Conv2d
from .conv_norm import ConvNorm, FoldingSequence, LinearNorm, fold_norms
from .fuse import fuse
from .initial import init_linear_and_conv
from .mlp import GELU, Mlp, ReLU
from .mobile import (
    NormHead,
    PointwiseMLP,
    Residual,
    conv_stem,
    depthwise,
    merging_stage,
)
from .neighborhood import NeighborhoodAttention, resize_rpb
from .normed import Linear
from .patch_embed import OverlapDownsample, OverlapPatchEmbed, PatchEmbed, convolved
from .reduced_attention import ReducedAttention
from .sequence_head import SequenceHead
from .stage import NormedStage, Stage, drop_path_rates
from .tables import relative_bias_table, resize_bias_table, resize_positions
from .tokens import ClassAttention, TransformerBlock

__all__ = [
    "GELU",
    "AggregatedAttention",
    "BranchHead",
    "BranchNorm",
    "Branches",
    "ClassAttention",
    "Conv2d",
    "ConvNorm",
    "CosineAttention",
    "CosineFullAttention",
    "CrossStage",
    "FoldingSequence",
    "GridAttention",
    "Linear",
    "LinearNorm",
    "Mlp",
    "NeighborhoodAttention",
    "NormHead",
    "NormReLU",
    "NormedStage",
    "OverlapDownsample",
    "OverlapPatchEmbed",
    "PatchEmbed",
    "PointwiseMLP",
    "ReLU",
    "ReducedAttention",
    "Residual",
    "SequenceHead",
    "Stage",
    "TransformerBlock",
    "conv_stem",
    "convolved",
    "depthwise",
    "drop_path_rates",
    "fold_norms",
    "fuse",
    "gated",
    "init_linear_and_conv",
    "merging_stage",
    "relative_bias_table",
    "resize_bias_table",
    "resize_positions",
    "resize_rpb",
    "shifted_windows",
]
