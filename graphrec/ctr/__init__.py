"""CTR models: one module per system; importing this package fills `graphrec.registry`."""

from .autoint import AutoInt
from .base import CTRModel
from .bst import BST
from .dcnv2 import DCNv2
from .deepfm import DeepFM
from .din import DIN
from .dnn import DNN
from .embedding import FusedEmbedding
from .fcn import ECN, FCN, LCN
from .finalmlp import FinalMLP
from .fm import FM, FwFM
from .gdcn import GDCN
from .infnet import INFNet
from .lr import LR
from .masknet import MaskNet
from .mmoe import MMoE
from .ple import PLE
from .shared_bottom import SharedBottom
from .xdeepfm import XDeepFM

__all__ = [
    "BST",
    "DIN",
    "DNN",
    "ECN",
    "FCN",
    "FM",
    "GDCN",
    "LCN",
    "LR",
    "PLE",
    "AutoInt",
    "CTRModel",
    "DCNv2",
    "DeepFM",
    "FinalMLP",
    "FusedEmbedding",
    "FwFM",
    "INFNet",
    "MMoE",
    "MaskNet",
    "SharedBottom",
    "XDeepFM",
]
