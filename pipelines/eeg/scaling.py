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
    return rescale(windows, *measure_scale(windows, train))


def measure_scale(windows: Windows, train: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over the samples of some windows, float64 (C,) each.

    The standard deviation is 1 where it would be 0. Of centred windows it is that of their centred values,
    and the mean is 0.

    Args:
        windows: All windows.
        train: Indices of those to measure, int64 (n,). No other sample is looked at.
    """
    if windows.centred:
        mean = torch.zeros(len(windows.channels), dtype=torch.float64)
        squares = torch.zeros_like(mean)
        for part in train.split(4096):
            squares += windows.x(part).double().square().mean(1).sum(0)
        spread = (squares / len(train)).sqrt()
    else:
        seen = torch.zeros(len(windows.signal) + 1)
        ones = torch.ones(len(train))
        seen.index_add_(0, windows.start[train], ones)
        seen.index_add_(0, windows.start[train] + windows.length, -ones)
        inside = windows.signal[seen.cumsum(0)[:-1] > 0].double()
        mean, spread = inside.mean(dim=0), inside.std(dim=0, correction=0)
    return mean, torch.where(spread > 0, spread, torch.ones_like(spread))


def rescale(windows: Windows, mean: Tensor, spread: Tensor) -> Windows:
    """Channels minus ``mean`` (C,), over ``spread`` (C,)."""
    return replace(windows, signal=((windows.signal.double() - mean) / spread).float())
