"""CTR models: one module per system; importing this package fills `graphrec.registry`."""

from .autoint import AutoInt
from .base import CTRModel
from .dcnv2 import DCNv2
from .dnn import DNN
from .embedding import FusedEmbedding
from .fcn import ECN, FCN, LCN
from .lr import LR

__all__ = ["DNN", "ECN", "FCN", "LCN", "LR", "AutoInt", "CTRModel", "DCNv2", "FusedEmbedding"]
