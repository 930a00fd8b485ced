"""Splits of windows that do not leak: along time with a gap, by recording, by subject.

Neighbouring windows of a recording are nearly the same, so a random split tests on what was trained on: on
UCI's EEG Eye State a nearest neighbour then scores 97 per cent, and 52 on the last fifth of the recording.
There is no random split of windows here.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphrec.errors import ConfigError, DataError

from ..index_splits import IndexSplit, draw_groups
from .windows import Windows


def split_by_time(windows: Windows, valid: float = 0.1, test: float = 0.2, *, gap: int = 0) -> IndexSplit:
    """In every recording the beginning trains, then comes validation, then the test.

    Windows that reach over a border, or begin less than ``gap`` samples after one, are left out.

    Args:
        windows: All windows.
        valid: Share of each recording's samples.
        test: Share of each recording's samples.
        gap: Samples that are left unused after each border; slow drifts ask for a second or more.

    Raises:
        ConfigError: The shares are negative or leave nothing to train on, or the gap is negative.
        DataError: A part that was asked for gets no window.
    """
    if min(valid, test) < 0 or valid + test >= 1 or gap < 0:
        raise ConfigError(
            f"valid={valid}, test={test}, gap={gap}: shares must sum to less than 1, none be negative"
        )
    total = windows.recording_length[windows.recording]
    first, second = _floor(total, 1 - valid - test), _floor(total, 1 - test)
    begin, end = windows.offset, windows.offset + windows.length
    train = end <= (first if valid + test > 0 else total)
    parts = {
        "train": train,
        "valid": (begin >= first + gap) & (end <= second) if valid else torch.zeros_like(train),
        "test": (begin >= second + gap) if test else torch.zeros_like(train),
    }
    name = f"{windows.name}: last {test:.0%} of each recording, gap {gap}"
    return _split(parts["train"], parts["valid"], parts["test"], name, {"valid": valid > 0, "test": test > 0})


def _floor(total: Tensor, share: float) -> Tensor:
    return (total.double() * share + 1e-6).floor().long()


def _split(train: Tensor, valid: Tensor, test: Tensor, name: str, wanted: dict[str, bool]) -> IndexSplit:
    for part, mask in (("train", train), ("valid", valid), ("test", test)):
        if wanted.get(part, True) and not bool(mask.any()):
            raise DataError(
                f"{name}: no window falls into the {part} part; take shorter windows, a smaller gap or "
                "more data"
            )
    return IndexSplit.of(train.nonzero(), valid.nonzero(), test.nonzero(), len(train), name)


def split_by_subject(windows: Windows, valid: float = 0.1, test: float = 0.2, *, seed: int = 0) -> IndexSplit:
    """Whole subjects; at least one in each part whose share is positive.

    Raises:
        ConfigError: Too few subjects.
    """
    return _by_group(windows.subject, len(windows.subjects), valid, test, seed, "subject", windows.name)


def split_by_recording(
    windows: Windows, valid: float = 0.1, test: float = 0.2, *, seed: int = 0
) -> IndexSplit:
    """Whole recordings or trials; at least one in each part whose share is positive.

    Raises:
        ConfigError: Too few recordings.
    """
    return _by_group(
        windows.recording, len(windows.recording_length), valid, test, seed, "recording", windows.name
    )


def _by_group(
    group: Tensor, count: int, valid: float, test: float, seed: int, what: str, name: str
) -> IndexSplit:
    part = draw_groups(count, valid, test, seed=seed, what=what, name=name)
    of = part[group]
    wanted = {"valid": valid > 0, "test": test > 0}
    return _split(of == 0, of == 1, of == 2, f"{name}: by {what}, seed {seed}", wanted)


def split_windows(
    windows: Windows, by: str, valid: float = 0.1, test: float = 0.2, *, gap: int = 0, seed: int = 0
) -> IndexSplit:
    """`split_by_time` (with ``gap``), `split_by_recording` or `split_by_subject` (with ``seed``).

    Raises:
        ConfigError: ``by`` is not ``"time"``, ``"recording"`` or ``"subject"``, or see there.
        DataError: See there.
    """
    if by == "time":
        return split_by_time(windows, valid, test, gap=gap)
    whole = {"recording": split_by_recording, "subject": split_by_subject}
    if by not in whole:
        raise ConfigError(f"split_by={by!r}: must be time, recording or subject")
    return whole[by](windows, valid, test, seed=seed)


def leave_one_subject_out(windows: Windows, *, valid: int = 0, seed: int = 0) -> list[IndexSplit]:
    """A split for each subject, who alone tests.

    Args:
        windows: All windows.
        valid: How many of the others validate.
        seed: Of their choice.

    Raises:
        ConfigError: Too few subjects.
    """
    count = len(windows.subjects)
    if count < 2 + valid:
        raise ConfigError(f"{windows.name}: {count} subjects; leaving one out needs at least {2 + valid}")
    splits = []
    for tested in range(count):
        others = np.random.default_rng([seed, tested]).permutation([s for s in range(count) if s != tested])
        checks = torch.isin(windows.subject, torch.from_numpy(others[:valid].copy()))
        test = windows.subject == tested
        name = f"{windows.name}: subject {windows.subjects[tested] or tested} tests"
        splits.append(_split(~test & ~checks, checks, test, name, {"valid": valid > 0}))
    return splits


def time_folds(
    windows: Windows, folds: int = 10, *, gap: int = 0, last: int | None = None
) -> list[IndexSplit]:
    """Folds cut along time inside every recording: HiSTN's "subject-dependent" protocol (arXiv 2408.15255).

    Each recording is cut into equal segments; in fold k segment k tests, the next one validates and the
    others train. Windows that reach over a border between parts, or come nearer than ``gap`` samples to a
    part that is tested later in the chain train, valid, test, are left out. Every trial trains and tests, so
    scores say how well a known trial is recognised, not a new one.

    Args:
        windows: All windows.
        folds: Segments of a recording.
        gap: Samples between parts.
        last: Use only so many samples at the end of each recording, as HiSTN uses the last 60 s of DREAMER's
            trials.

    Raises:
        ConfigError: Fewer than three folds.
        DataError: A fold gets no window.
    """
    if folds < 3 or gap < 0:
        raise ConfigError(
            f"folds={folds}, gap={gap}: needs three folds (train, valid, test) and no negative gap"
        )
    total = windows.recording_length[windows.recording]
    begin = windows.offset - (total - last).clamp(min=0) if last is not None else windows.offset
    total = total.clamp(max=last) if last is not None else total
    end, inside = begin + windows.length, begin >= 0

    def segment(k: int) -> tuple[Tensor, Tensor]:
        return total * k // folds, total * (k + 1) // folds

    def within(k: int) -> Tensor:
        low, high = segment(k)
        return inside & (begin >= low) & (end <= high)

    def near(k: int) -> Tensor:
        low, high = segment(k)
        return (begin < high + gap) & (end > low - gap)

    splits = []
    for k in range(folds):
        following = (k + 1) % folds
        valid = within(following) & ~near(k)
        train = inside & ~near(k) & ~near(following)
        splits.append(_split(train, valid, within(k), f"{windows.name}: time fold {k}", {}))
    return splits


def adaptation_split(windows: Windows, subject: str, *, samples: int, gap: int = 0) -> IndexSplit:
    """The beginning of each of a subject's recordings trains, the rest tests.

    The second stage of HiSTN's "subject-independent" protocol fine-tunes on the first 10 s of every trial of
    the tested subject. What it measures is adaptation to a subject with labels, not transfer to an unknown
    one; for that, see `leave_one_subject_out`.

    Args:
        windows: All windows.
        subject: Who is tested.
        samples: Samples at the beginning of each recording that train.
        gap: Samples between the parts.

    Raises:
        ConfigError: Nobody is called so.
        DataError: A part gets no window.
    """
    if subject not in windows.subjects:
        raise ConfigError(f"subject={subject!r}: must be one of {', '.join(windows.subjects)}")
    own = windows.subject == windows.subjects.index(subject)
    train = own & (windows.offset + windows.length <= samples)
    test = own & (windows.offset >= samples + gap)
    name = f"{windows.name}: adaptation to subject {subject}"
    return _split(train, torch.zeros_like(own), test, name, {"valid": False})


def refuse_shared_samples(windows: Windows, split: IndexSplit) -> None:
    """Refuse a split in which windows of different parts share samples.

    Raises:
        DataError: Two do; names them.
    """
    parts = [(name, getattr(split, name)) for name in ("train", "valid", "test")]
    index = torch.cat([found for _, found in parts])
    owner = torch.cat([torch.full_like(found, i) for i, (_, found) in enumerate(parts)])
    order = windows.start[index].argsort()
    index, owner, start = index[order], owner[order], windows.start[index[order]]
    # The furthest end of every part before each window, in the order of the signal.
    for part, (name, _) in enumerate(parts):
        end = torch.where(owner == part, start + windows.length, -1).cummax(0)
        wrong = (owner != part) & (end.values > start)
        if bool(wrong.any()):
            at = int(wrong.nonzero()[0])
            raise DataError(
                f"{split.name}: window {int(index[at])} ({parts[int(owner[at])][0]}) and window "
                f"{int(index[int(end.indices[at])])} ({name}) share samples, so one gives the other away; "
                "split along time, by recording or by subject"
            )
