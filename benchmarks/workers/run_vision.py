"""A backbone and its peer on a CPU with the same weights, interleaved in this one process.

Settings: model (a name of graphrec.vision), official (folder of clones), dtype, batch, repeats (0 times
nothing), memory_batch (0 for none), shares (whether to profile the peer). Peak memory is that of a training
step in a child process for each.
"""

from __future__ import annotations

import ctypes
import json
import os
import time
from collections.abc import Callable

import torch
from meter import finish, settings, status_mb
from torch import Tensor, nn
from vision_peers import PEERS

from graphrec import vision

Step = Callable[[], None]
BOTH_PAY = ("conv", "aten::addmm", "aten::mm", "batch_norm", "layer_norm", "gelu", "relu", "clamp_min")
"""Parts of the names of operators that both contenders call on the same numbers; batched products are not."""


def forward(model: nn.Module, x: Tensor, low: bool) -> Step:
    """One evaluation."""

    def step() -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=low):
            model(x)  # timm's ConViT keeps what it makes here for its next training step

    return step


def training(model: nn.Module, x: Tensor, low: bool) -> Step:
    """Forward, loss, backward; gradients are dropped, no optimiser runs."""
    target = torch.arange(len(x)) % 1000

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            loss = nn.functional.cross_entropy(model(x).float(), target)
        loss.backward()
        for one in model.parameters():
            one.grad = None

    return step


def compare(ours: nn.Module, theirs: nn.Module, x: Tensor) -> float:
    """Relative difference of the logits."""
    with torch.no_grad():
        mine, other = ours(x), theirs(x)
    return float((mine - other).norm() / other.norm())


def timed(steps: dict[str, Step], repeats: int) -> dict[str, list[float]]:
    """CPU milliseconds of each, in turn, after a run to warm up."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if repeat:
                found[name].append((time.process_time() - start) * 1e3)
    return found


def share(step: Step) -> float:
    """The part of a step that convolutions, linear layers, norms and activations take."""
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    rows = [(one.key, one.self_cpu_time_total) for one in profile.key_averages()]
    paid = sum(spent for name, spent in rows if any(part in name for part in BOTH_PAY))
    return paid / sum(spent for _, spent in rows)


def make(name: str, folder: str) -> tuple[vision.Backbone, nn.Module]:
    """Ours and the peer, without stochastic depth."""
    ours = vision.create_model(name, drop_path_rate=0.0)
    theirs = PEERS[name].make(ours, folder)
    for module in theirs.modules():
        if type(module).__name__ == "DropPath":
            module.drop_prob = 0.0
    return ours, theirs


def peak(case: dict[str, object], place: int) -> tuple[float, float]:
    """Peak memory in MB of a training step of ours (0) or the peer (1), in a child of this process.

    The second number is how much of it were pages of libraries and other files, which processes share.

    Both models are made in the child and the other one is dropped, so that the child is alike. There glibc
    maps every tensor of 128 KB and more by itself, so that what is freed does not count.
    """
    read, write = os.pipe()
    if not (child := os.fork()):
        ctypes.CDLL(None).mallopt(-3, 1 << 17)  # M_MMAP_THRESHOLD, which glibc otherwise lets grow
        model = make(str(case["model"]), str(case["official"]))[place].train()
        side = vision.family(str(case["model"])).card.variants[str(case["model"])].size
        step = training(model, torch.randn(case["memory_batch"], 3, side, side), case["dtype"] == "bfloat16")
        step()
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak starts anew
        step()
        os.write(write, json.dumps([status_mb("VmHWM"), status_mb("RssFile")]).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        told = file.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child that measures memory ended with {status}"
    total, shared = json.loads(told)
    return float(total), float(shared)


def main() -> None:
    """Build both, compare, time."""
    case = settings()
    torch.set_num_threads(case["threads"])
    torch.manual_seed(0)
    names = ("graphrec", "peer")
    memory = {name: peak(case, place) for place, name in enumerate(names)} if case["memory_batch"] else {}
    ours, theirs = make(case["model"], case["official"])
    low, repeats = case["dtype"] == "bfloat16", case["repeats"]
    side = vision.family(case["model"]).card.variants[case["model"]].size
    x = torch.randn(case["batch"], 3, side, side)
    if PEERS[case["model"]].same:
        difference = compare(ours.eval(), theirs.eval(), x[:1])
        assert difference < 1e-4, f"the logits differ by {difference}"
    models = dict(zip(names, (ours.eval(), theirs.eval()), strict=True))
    runs, shares = {}, {}
    for question, prepare in (("forward", forward), ("training step", training)) if repeats else ():
        if prepare is training:
            if case["batch"] == 1 and any(isinstance(one, nn.BatchNorm1d) for one in ours.modules()):
                continue  # one image has no variance behind the pooling
            ours.train()
            theirs.train()
        steps = {name: prepare(model, x, low) for name, model in models.items()}
        runs[question] = timed(steps, repeats)
        if case["shares"]:
            shares[question] = share(steps["peer"])
    finish(["torch", "timm", "graphrec"], runs=runs, memory=memory, shares=shares)


if __name__ == "__main__":
    main()
