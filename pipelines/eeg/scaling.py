"""Scales: what HiSTN does to each trial, and what is fitted on the training windows alone."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .container import EEGSet, Recording
from .windows import Windows


def max_abs(recordings: EEGSet) -> EEGSet:
    """Every channel of every recording divided by its largest absolute value, as HiSTN (arXiv 2408.15255) has
    it.

    A silent channel stays zero, samples marked bad do not count. The largest value is that of the whole
    recording: under a split along time a test part has a share in it; `standardise` has none.
    """

    def scaled(one: Recording) -> Recording:
        good = one.signal if one.bad is None or bool(one.bad.all()) else one.signal[~one.bad]
        top = good.abs().amax(dim=0)
        return replace(one, signal=one.signal / torch.where(top > 0, top, torch.ones_like(top)))

    return recordings.map(scaled)


def standardise(windows: Windows, train: Tensor) -> Windows:
    """Channels with mean 0 and standard deviation 1 over the samples of the training windows.

    Args:
        windows: All windows.
        train: Indices of the training windows, int64 (n,). No other sample is looked at.
    """
    seen = torch.zeros(len(windows.signal) + 1)
    ones = torch.ones(len(train))
    seen.index_add_(0, windows.start[train], ones)
    seen.index_add_(0, windows.start[train] + windows.length, -ones)
    inside = windows.signal[seen.cumsum(0)[:-1] > 0].double()
    mean, spread = inside.mean(dim=0), inside.std(dim=0, correction=0)
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    return replace(windows, signal=((windows.signal.double() - mean) / spread).float())
