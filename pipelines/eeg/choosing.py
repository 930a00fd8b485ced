"""Parts of sets of recordings."""

from __future__ import annotations

from dataclasses import replace

from graphrec.errors import ConfigError, DataError

from .container import EEGSet, Recording


def last_seconds(recordings: EEGSet, seconds: float) -> EEGSet:
    """The end of every recording.

    Raises:
        DataError: One is shorter.
    """
    count = round(seconds * recordings.rate)
    short = [one for one in recordings if len(one) < count]
    if short:
        raise DataError(f"{short[0].name}: lasts {short[0].seconds:.1f} s; {seconds:g} s are asked for")

    def cut(one: Recording) -> Recording:
        label = one.label if one.label is None or not one.label.dim() else one.label[-count:]
        bad = None if one.bad is None else one.bad[-count:]
        return replace(one, signal=one.signal[-count:], label=label, bad=bad)

    return recordings.map(cut)


def of_subject(recordings: EEGSet, subject: str, *, others: bool = False) -> EEGSet:
    """Recordings of a subject, or of all others.

    Raises:
        ConfigError: Nobody is called so, or there are no others.
    """
    people = list(dict.fromkeys(one.subject for one in recordings))
    if subject not in people:
        raise ConfigError(f"subject={subject!r}: must be one of {', '.join(people)}")
    chosen = tuple(one for one in recordings if (one.subject != subject) == others)
    if not chosen:
        raise ConfigError(f"subject={subject!r}: is the only one")
    return replace(recordings, recordings=chosen)
