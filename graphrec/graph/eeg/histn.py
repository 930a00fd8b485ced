"""HiSTN: a hierarchy of electrodes, regions and the whole head, in some 1,200 weights.

Kuang, Song, Michoski: Emotion classification from multi-channel EEG signals using HiSTN, a hierarchical
graph-based spatial-temporal approach, https://arxiv.org/abs/2408.15255. Official code (Keras, Apache-2.0):
https://github.com/dykuang/EEG-based-affective-computing, ``HST_model`` with ``mergeMode="dense"``.

The published network has 1,265 weights, 1,181 of them trained; the other 84 are running means and variances.

Symbols: B windows, C electrodes, R regions, T samples, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.eeg import EPOC3, EPOC5, Montage
from graphrec.registry import Card, register_model
from graphrec.training.arguments import check_number, check_whole

from .layers import ChebyshevFilter, RowNorm, glorot, mix_rows, shrink, temporal_conv

_TAPS = 5
_TEST = "tests/graph/test_histn.py::"
_CARD = Card(
    name="histn",
    task="eeg",
    title="HiSTN: Emotion classification from multi-channel EEG signals, hierarchical graph-based (2024)",
    paper="https://arxiv.org/abs/2408.15255",
    code="https://github.com/dykuang/EEG-based-affective-computing",
    licence="Apache-2.0",
    published={
        "weights": 1265,
        "trained weights": 1181,
        "DREAMER valence F1, subject-dependent": 0.9682,
        "DREAMER arousal F1, subject-dependent": 0.9562,
        "DREAMER valence F1, adapted to the subject": 0.7834,
        "DREAMER arousal F1, adapted to the subject": 0.8159,
    },
    verified={
        "weights": _TEST + "test_published_sizes",
        "layer by layer the official arithmetic": _TEST + "test_equals_the_official_arithmetic",
        "Chebyshev filters and gates equal the graph operators": _TEST + "test_equals_the_graph_operators",
        "above the commonest class on a part of EEG Eye State along time": (
            "tests/graph/test_eeg_real_data.py::test_histn_on_a_part_along_time"
        ),
    },
    differs=(
        "DREAMER is given out on request only, so no published figure was repeated. Temporal kernels and "
        'their mixture are multiplied before the convolution. The published "subject-independent" figures '
        "come after fine-tuning on labelled seconds of every trial of the tested subject; `subject_adapted` "
        "also reports the network before that."
    ),
    multi_label=False,
)


def gaussian_labels(classes: int, sigma: float) -> Tensor:
    """Soft labels of ordered classes: row k is a Gaussian around k over 0 … K - 1, normalised.

    HiSTN takes sigma 0.5: of five classes an inner one keeps 0.787 and gives 0.107 to each neighbour.

    Args:
        classes: K.
        sigma: Standard deviation in classes; 0 for plain one-hot labels.

    Returns:
        float32 (K, K).
    """
    if sigma < 0:
        raise ConfigError(f"label_smoothing={sigma}: must not be negative")
    if sigma == 0:
        return torch.eye(classes)
    grid = torch.arange(classes, dtype=torch.float64)
    return (-((grid - grid[:, None]) ** 2) / (2 * sigma**2)).softmax(1).float()


class Gates(NamedTuple):
    """What the network weights how much. The weights of a region's electrodes sum to 1, as do those of all
    regions.

    Attributes:
        electrodes: In the fusion of their signals, (B, C).
        electrodes_after: In the fusion of what they told each other, (B, C).
        regions: In the collapse of the former, (B, R).
        regions_after: In the collapse of the latter, (B, R).
    """

    electrodes: Tensor
    electrodes_after: Tensor
    regions: Tensor
    regions_after: Tensor


class TemporalHead(nn.Module):
    """Filters along time, the same for every electrode, each electrode with its own mixture of them.

    (C, B, T) -> (C, B, (T - 4) // 2). Kernels and mixture meet without anything between them, so they are
    multiplied first and one convolution per electrode is left: an eighth of the products, the same numbers.
    """

    def __init__(self, electrodes: int, kernels: int, length: int, dropout: float, momentum: float) -> None:
        super().__init__()
        self.kernel = nn.Parameter(glorot((kernels, length), length, length * kernels))
        self.mix = nn.Parameter(glorot((electrodes, kernels), kernels * electrodes, kernels))
        self.norm = RowNorm(electrodes, momentum)
        self.depthwise = nn.Parameter(glorot((electrodes, _TAPS), _TAPS * electrodes, _TAPS))
        self.norm_after = RowNorm(electrodes, momentum)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(C, B, T) -> (C, B, (T - 4) // 2)."""
        taps = self.kernel.shape[1]
        x = temporal_conv(x, self.mix @ self.kernel, ((taps - 1) // 2, taps // 2))
        x = temporal_conv(F.elu(self.norm(x)), self.depthwise, (0, 0))
        return self.dropout(F.avg_pool1d(F.elu(self.norm_after(x)), 2))


class ElectrodeLevel(nn.Module):
    """What the electrodes of a region tell each other, (C, B, T) -> (C, B, T).

    Per region a Chebyshev filter over its electrodes, a convolution of 5 samples along time and a matrix over
    its electrodes; all regions together are block-diagonal (C, C) matrices.
    """

    def __init__(self, montage: Montage, hops: Sequence[int], momentum: float) -> None:
        super().__init__()
        sizes = [len(region.channels) for region in montage.regions]
        self.filters = nn.ModuleList(ChebyshevFilter(montage.adjacency(i), k) for i, k in enumerate(hops))
        self.depthwise = nn.Parameter(torch.cat([glorot((n, _TAPS), _TAPS * n, _TAPS) for n in sizes]))
        self.pointwise = nn.ParameterList(glorot((n, n), n, n) for n in sizes)
        self.norm = RowNorm(sum(sizes), momentum)

    def forward(self, x: Tensor) -> Tensor:
        """(C, B, T) -> (C, B, T)."""
        around = torch.block_diag(*(one.matrix() for one in self.filters))  # type: ignore[operator]
        x = temporal_conv(mix_rows(around, x), self.depthwise, (_TAPS // 2, _TAPS // 2))
        return F.elu(self.norm(mix_rows(torch.block_diag(*self.pointwise), x)))


class Fusion(nn.Module):
    """One signal from each group of signals, weighted by a softmax over the group.

    The weights come from the means over time, by a linear layer within the group.

    Args:
        sizes: Signals of each group, one group after another.
    """

    groups: Tensor

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.layers = nn.ModuleList(nn.Linear(n, n) for n in sizes)
        for layer in self.layers:
            nn.init.xavier_uniform_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.register_buffer("groups", torch.block_diag(*(torch.ones(1, n) for n in sizes)), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, B, T) -> signals (groups, B, T) and weights (B, N)."""
        parts = x.mean(2).T.split(self.sizes, dim=1)
        pairs = zip(self.layers, parts, strict=True)
        weights = torch.cat([layer(part).softmax(1) for layer, part in pairs], dim=1)
        return mix_rows(self.groups, x * weights.T[:, :, None].to(x.dtype)), weights


@register_model(_CARD)
class HiSTN(nn.Module):
    """Classifies windows of EEG.

    Args:
        montage: Electrodes in regions, and who neighbours whom.
        classes: K.
        kernels: Temporal filters.
        kernel_length: Their length; 64 is half a second at the published 128 samples per second.
        hops: How far an electrode hears within its region; one number, or one for each region.
        region_hops: How far a region hears.
        dropout: After the temporal head and before the output.
        label_smoothing: Sigma of `gaussian_labels`; 0 where classes have no order.
        momentum: Share of a step in the running means and variances. Keras's 0.01 wants several hundred
            steps; take more where there are fewer.

    Raises:
        ConfigError: Sizes that are not positive, or as many hops as there are regions are not given.

    Shape:
        x (B, C, T) with at least 6 samples -> logits (B, K).
    """

    targets: Tensor

    def __init__(
        self,
        montage: Montage,
        classes: int,
        *,
        kernels: int = 8,
        kernel_length: int = 64,
        hops: int | Sequence[int] = 2,
        region_hops: int = 2,
        dropout: float = 0.5,
        label_smoothing: float = 0.5,
        momentum: float = 0.01,
    ) -> None:
        super().__init__()
        sizes = [len(region.channels) for region in montage.regions]
        for name, size in (("kernels", kernels), ("kernel_length", kernel_length), ("classes", classes)):
            check_whole(name, size)
        check_number("dropout", dropout, 0.0, 1.0)
        check_number("momentum", momentum, 0.0, math.inf)
        check_number("label_smoothing", label_smoothing, 0.0, math.inf)
        self.montage, self.classes = montage, classes
        self.temporal = TemporalHead(sum(sizes), kernels, kernel_length, dropout, momentum)
        self.exchange = ElectrodeLevel(montage, _hops(hops, len(sizes)), momentum)
        self.region_filter = ChebyshevFilter(montage.region_adjacency(), region_hops)
        self.fuse, self.fuse_after = Fusion(sizes), Fusion(sizes)
        self.collapse, self.collapse_after = Fusion([len(sizes)]), Fusion([len(sizes)])
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(sum(sizes) + len(sizes) + 1, classes)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.register_buffer("targets", gaussian_labels(classes, label_smoothing), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of windows (B, C, T).

        Raises:
            DataError: Another number of electrodes, or fewer than 6 samples.
        """
        means, _ = self.levels(x)
        return self.output(self.dropout(means))

    def levels(self, x: Tensor) -> tuple[Tensor, Gates]:
        """Means over time of the signals of electrodes, regions and head, (B, C + R + 1), and the gates that
        made them.
        """
        self._check(x)
        x = self.temporal(x.transpose(0, 1))
        after = self.exchange(x)
        regions, gates = self.fuse(x)
        regions_after, gates_after = self.fuse_after(after)
        head, gate = self.collapse(regions)
        head_after, gate_after = self.collapse_after(regions_after)
        signals = (x + after, self.region_filter(regions) + regions_after, head + head_after)
        return torch.cat([one.mean(2) for one in signals]).T, Gates(gates, gates_after, gate, gate_after)

    def _check(self, x: Tensor) -> None:
        wanted = len(self.montage.channels)
        if x.dim() != 3 or x.shape[1] != wanted or x.shape[2] < _TAPS + 1:
            raise DataError(
                f"windows of shape {tuple(x.shape)}: must be (windows, {wanted} electrodes, {_TAPS + 1} or "
                "more samples)"
            )

    def training_loss(self, batch: Any) -> Tensor:
        """Mean cross-entropy of a `WindowBatch` to the smoothed labels, times its weights if it has some."""
        logs = self(batch.x.transpose(1, 2)).float().log_softmax(1)
        losses = -(self.targets[batch.labels].float() * logs).sum(1)
        return losses.mean() if batch.weights is None else (losses * batch.weights).mean()

    def predict(self, batch: Any) -> Tensor:
        """Probabilities (B, K) of a `WindowBatch`."""
        return self(batch.x.transpose(1, 2)).float().softmax(1)

    @torch.no_grad()
    def constrain(self) -> None:
        """Keep weights within 1, as the official constraints do; the trainer calls it after every step.

        Keras takes the norm along a kernel's first axis. That is time in the depthwise convolution, but an
        axis of length 1 in the mixture of filters and in the pointwise matrices, so there every single weight
        is bounded.
        """
        shrink(self.temporal.depthwise)
        for one in (self.temporal.mix, *self.exchange.pointwise):
            one.clamp_(-1, 1)


def _hops(hops: int | Sequence[int], regions: int) -> list[int]:
    listed = [hops] * regions if isinstance(hops, int) else list(hops)
    if len(listed) != regions:
        raise ConfigError(f"hops={hops}: gives {len(listed)} numbers for {regions} regions")
    return listed


def histn_3(classes: int = 5, **options: Any) -> HiSTN:
    """The official third version: three regions of `EPOC3`, electrodes hear three hops far, regions one."""
    return HiSTN(EPOC3, classes, **{"hops": 3, "region_hops": 1, **options})


def histn_5(classes: int = 5, **options: Any) -> HiSTN:
    """The official second version: five regions of `EPOC5`."""
    return HiSTN(EPOC5, classes, **{"hops": (1, 2, 1, 2, 1), "region_hops": 2, **options})
