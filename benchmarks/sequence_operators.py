"""CPU time of linear attention, its gated forms, the delta rule and scans, beside loops and quadratic forms.

python benchmarks/sequence_operators.py --repeats 5

All contenders run in one process, in turn, forward and backward, after a check that they agree.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import common
import torch
from torch import Tensor
from torch.nn import functional as F

import graphrec
from graphrec.kernels import delta_rule, gated_linear_attention, linear_attention, scan, selective_scan

Operator = Callable[..., Tensor]
LENGTHS = (1024, 4096, 16384, 65536)
LEAST = 0.03
"""CPU seconds that one measurement takes at least; short calls are repeated."""


@dataclass
class Contest:
    """An operator and the plain way to compute the same, on the same inputs."""

    name: str
    size: str
    ours: Operator
    other: str
    theirs: Operator
    inputs: list[Tensor]


def quadratic(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """All pairs."""
    return (q @ k.mT).tril() @ v


def gated_steps(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """One position at a time; ``log_decay`` is (B, H, T) or (B, H, T, K)."""
    decay = log_decay.exp()
    decay = decay.unsqueeze(-1) if decay.dim() == 3 else decay
    state, out = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3]), []
    for query, key, value, keep in zip(*(one.unbind(2) for one in (q, k, v, decay)), strict=True):
        state = keep.unsqueeze(-1) * state + key.unsqueeze(-1) * value.unsqueeze(-2)
        out.append((query.unsqueeze(-2) @ state).squeeze(-2))
    return torch.stack(out, 2)


def delta_steps(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """One position at a time."""
    state, out = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3]), []
    for query, key, value, write in zip(*(one.unbind(2) for one in (q, k, v, beta)), strict=True):
        missing = value.unsqueeze(-2) - key.unsqueeze(-2) @ state
        state = state + key.unsqueeze(-1) * (write[..., None, None] * missing)
        out.append((query.unsqueeze(-2) @ state).squeeze(-2))
    return torch.stack(out, 2)


def scan_steps(a: Tensor, b: Tensor) -> Tensor:
    """One step at a time."""
    state, out = torch.zeros_like(b[:, 0]), []
    for rate, drive in zip(a.unbind(1), b.unbind(1), strict=True):
        state = rate * state + drive
        out.append(state)
    return torch.stack(out, 1)


def selective_steps(u: Tensor, delta: Tensor, decay: Tensor, read_in: Tensor, read_out: Tensor) -> Tensor:
    """One step at a time, as the reference function of Mamba's repository does."""
    rates = (delta.unsqueeze(-1) * decay).exp().unbind(1)
    drives = ((delta * u).unsqueeze(-1) * read_in.unsqueeze(2)).unbind(1)
    state, out = torch.zeros_like(drives[0]), []
    for rate, drive, read in zip(rates, drives, read_out.unbind(1), strict=True):
        state = rate * state + drive
        out.append((state @ read.unsqueeze(-1)).squeeze(-1))
    return torch.stack(out, 1)


def heads(batch: int, count: int, length: int, dim: int) -> dict[str, Tensor]:
    """Inputs of the attention-like operators."""
    q, k, v = (torch.randn(batch, count, length, dim) for _ in range(3))
    gate, wide = torch.rand(batch, count, length), torch.rand(batch, count, length, dim)
    return {"q": q, "k": F.normalize(k, dim=-1), "v": v, "beta": gate, "gate": -gate, "wide": -wide}


def contests() -> list[Contest]:
    """What is compared."""
    x = heads(2, 4, 1024, 64)
    shared, size = [x["q"], x["k"], x["v"]], "2 x 4 x 1,024 x 64"
    per_head, per_dimension = "`gated_linear_attention`, per head", "`gated_linear_attention`, per dimension"
    made = [
        Contest("`linear_attention`", size, linear_attention, "all pairs", quadratic, shared),
        Contest(per_head, size, gated_linear_attention, "steps", gated_steps, [*shared, x["gate"]]),
        Contest(per_dimension, size, gated_linear_attention, "steps", gated_steps, [*shared, x["wide"]]),
        Contest("`delta_rule`", size, delta_rule, "steps", delta_steps, [*shared, x["beta"]]),
    ]
    for batch, length, width in ((2, 512, 256), (2, 4096, 256), (64, 196, 64)):
        given = [torch.rand(batch, length, width), torch.randn(batch, length, width)]
        size = f"{batch} x {length:,} x {width}"
        made.append(Contest("`scan`", size, scan, "steps", scan_steps, given))
    for length in (512, 2048):
        u, delta = torch.randn(2, length, 128), torch.rand(2, length, 128)
        given = [u, delta, -torch.rand(128, 16), *(torch.randn(2, length, 16) for _ in range(2))]
        size = f"2 x {length:,} x 128, state 16"
        made.append(Contest("`selective_scan`", size, selective_scan, "steps", selective_steps, given))
    return made


def forms(length: int) -> list[tuple[str, Operator, list[Tensor]]]:
    """The operators whose time should be proportional to the length."""
    x = heads(1, 2, length, 32)
    shared = [x["q"], x["k"], x["v"]]
    return [
        ("`linear_attention`", linear_attention, shared),
        ("gated, per head", gated_linear_attention, [*shared, x["gate"]]),
        ("gated, per dimension", gated_linear_attention, [*shared, x["wide"]]),
        ("`delta_rule`", delta_rule, [*shared, x["beta"]]),
    ]


def both_ways(operator: Operator, inputs: Sequence[Tensor]) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward as one call: the output, and the gradients of its sum of squares."""
    leaves = [one.detach().requires_grad_() for one in inputs]

    def run() -> tuple[Tensor, ...]:
        out = operator(*leaves)
        return out.detach(), *torch.autograd.grad(out, leaves, out.detach())

    return run


def check(contest: Contest) -> None:
    """Stop unless both contenders compute the same.

    Raises:
        SystemExit: They differ by more than float32's rounding explains.
    """
    found, want = (both_ways(one, contest.inputs)() for one in (contest.ours, contest.theirs))
    for one, other in zip(found, want, strict=True):
        error = float((one - other).norm() / other.norm())
        if not error < 1e-4:
            sys.exit(f"{contest.name}, {contest.size}: the contenders differ by {error:.1e}")


def measure(run: Callable[[], object]) -> common.Run:
    """Milliseconds of CPU time of a call, by the mean of as many as take ``LEAST`` seconds."""
    calls, start = 0, time.process_time()
    while (spent := time.process_time() - start) < LEAST or not calls:
        run()
        calls += 1
    versions = {"graphrec": graphrec.__version__, "torch": torch.__version__}
    return {"ms": 1e3 * spent / calls, "versions": versions, "load": round(os.getloadavg()[0], 1)}


def interleave(pairs: Sequence[tuple[common.Job, Callable[[], object]]], repeats: int) -> None:
    """Measure all in turn, ``repeats`` times, after one round that is not kept."""
    for repeat in range(repeats + 1):
        for job, run in pairs:
            found = measure(run)
            if repeat:
                job.runs.append(found)
        print(f"round {repeat} of {repeats}", file=sys.stderr, flush=True)


def job(name: str, **settings: object) -> common.Job:
    """A contender in this process."""
    return common.Job(name, "", sys.executable, dict(settings))


def middle(one: common.Job) -> float:
    """Median milliseconds."""
    found = common.median(one, "ms")
    assert found
    return found


def text(found: list[tuple[Contest, common.Job, common.Job]], lengths: list[list[common.Job]]) -> str:
    """The result as Markdown."""
    rows = [
        [
            contest.name,
            contest.size,
            common.spread(ours, "ms"),
            f"{contest.other}: {common.spread(theirs, 'ms')}",
            common.ratio(theirs, ours, "ms"),
        ]
        for contest, ours, theirs in found
    ]
    first = common.markdown_table(["", "size", "ms", "plain torch, ms", "ratio"], rows)
    longer = []
    for line in lengths:
        times = [middle(one) for one in line]
        growth = times[-1] / times[0] / (LENGTHS[-1] / LENGTHS[0])
        longer.append([line[0].name, *(f"{one:,.1f}" for one in times), f"{growth:.2f}"])
    header = ["1 x 2 x T x 32", *(f"T = {length:,}" for length in LENGTHS), "per position, last to first"]
    return (
        "CPU milliseconds of a forward and a backward pass, float32.\n\n"
        f"{first}\n\n{common.markdown_table(header, longer)}"
    )


def main() -> None:
    """Run and record."""
    options = common.parser(__doc__, repeats=5).parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    found, pairs = [], []
    for contest in contests():
        check(contest)
        ours = job(contest.name, size=contest.size)
        theirs = job(f"{contest.other} for {contest.name}", size=contest.size)
        found.append((contest, ours, theirs))
        pairs += [
            (ours, both_ways(contest.ours, contest.inputs)),
            (theirs, both_ways(contest.theirs, contest.inputs)),
        ]
    lengths = []
    for place in range(len(forms(1))):
        line = []
        for length in LENGTHS:
            name, operator, inputs = forms(length)[place]
            line.append(job(name, length=length))
            pairs.append((line[-1], both_ways(operator, inputs)))
        lengths.append(line)
    interleave(pairs, options.repeats)
    jobs = [one for one, _ in pairs]
    common.record("sequence_operators", "Operators along a sequence", text(found, lengths), jobs, options)


if __name__ == "__main__":
    main()
