"""CPU time and peak memory of backbones, ours and timm's or the official code's.

python benchmarks/vision_cpu.py --only swin
python benchmarks/vision_cpu.py --official ~/clones --batch 1 8 --resume
python benchmarks/vision_cpu.py --official ~/clones --dtype bfloat16 --name vision_cpu_bf16 \\
    --title "Backbones on a CPU in bfloat16"
python benchmarks/vision_cpu.py --only shvit --repeats 0 --memory-runs 5 --update

``--official`` is a folder with clones of whai362/PVT, microsoft/CSWin-Transformer, rayleizhu/BiFormer,
DaiShiResearch/TransNeXt and SHI-Labs/Neighborhood-Attention-Transformer; they need einops. Without it the
systems that timm lacks are left out. Each finished system is kept in ``<name>.partial.json``, from which
``--resume`` goes on. ``--update`` replaces in the recorded result what was asked for, and leaves the rest.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace

import common

MODELS = {
    "swin_tiny_patch4_window7_224": "timm",
    "convnext_tiny": "timm",
    "davit_tiny": "timm",
    "maxvit_tiny_tf_224": "timm",
    "volo_d1_224": "timm",
    "pvt_v2_b1": "timm",
    "pvt_v2_b2_li": "timm",
    "convit_tiny": "timm",
    "tnt_s_patch16_224": "timm",
    "crossvit_15_240": "timm",
    "efficientvit_m4": "timm",
    "shvit_s2": "timm",
    "ecanet50": "timm's ResNet-50 with its gate",
    "pvt_tiny": "official",
    "cswin_tiny_224": "official",
    "transnext_micro": "official (attention_native)",
    "biformer_tiny": "official (ops/bra_legacy)",
    "nat_mini": "official, NATTEN written as masked attention to all",
}
"""Our name -> what it is compared with; workers/vision_peers.py makes it."""
WASTED = {
    "biformer_tiny": "gathers whole copies of keys",
    "volo_d1_224": "unfolds and folds, in 4 of its 18 blocks",
    "convit_tiny": "attends twice, to places and to contents",
    "transnext_micro": "unfolds keys and values",
    "nat_mini": "has no kernel for a CPU",
    "efficientvit_m4": "runs heads one after the other, as the paper wants",
}
"""What the peer spends more on than its arithmetic; there the goal is 1 / 1.5."""
WHY_NOT = (
    "Why not: EfficientViT asks for attention 24 times per image, for a few dozen microseconds of arithmetic"
    " each; the calls around it, in Python, take about as long (in SHViT too), and what both pay bounds its"
    " ratio. VOLO unfolds in 4 of 18 blocks, and linear layers bound the rest. ConViT's peer is timm's, which"
    " keeps its positions; the official code makes them anew. In ConViT's training step, linear layers and"
    " torch's fused attention take four fifths of the time."
    " While it trains, TransNeXt makes its biases by a network of distances in every block, whatever the"
    " batch."
)
"""Why some figures of float32 miss the goal; kept beside the table."""
EMULATED = (
    "A processor without instructions for bfloat16 (avx512_bf16, amx) emulates it in the peers' convolutions"
    " and linear layers; ours makes their products in float32 there and rounds them. So ours touches the code"
    " of float32 products and convolutions (some 14 MB of files, and what oneDNN compiles at run time), which"
    " the peer never reaches."
)
"""What decides the figures of bfloat16."""


def make_cases(options: argparse.Namespace) -> list[common.Job]:
    """A job per model, type and batch; its worker runs both contenders in turn."""
    return [
        common.Job(
            f"{model}, {dtype}, batch {batch}",
            "vision",
            "" if peer.startswith("official") and not options.official else sys.executable,
            {
                "model": model,
                "dtype": dtype,
                "batch": batch,
                "memory_batch": options.memory_batch if batch == options.batch[0] else 0,
                "repeats": options.repeats,
                "shares": model in WASTED,
                "official": options.official,
            },
        )
        for dtype in options.dtype
        for batch in options.batch
        for model, peer in MODELS.items()
    ]


def run(case: common.Job, threads: int, memory_runs: int) -> list[common.Job]:
    """Two jobs per question, ours and the peer's, with the runs that one process made in turn.

    Memory is measured in a process of its own each time: how its parent lies in memory moves it by a MB.
    """
    found = common.work(case, threads)
    memory = [found["memory"]] if found["memory"] else []
    alone = replace(case, settings=case.settings | {"repeats": 0})
    memory += [common.work(alone, threads)["memory"] for _ in range((memory_runs - 1) * len(memory))]
    print(f"{case.name}: {found['runs']} {memory}", file=sys.stderr, flush=True)
    rest = {key: found[key] for key in ("versions", "load", "commit")}
    settings = {key: one for key, one in case.settings.items() if key != "official"}
    asked = {}
    for what, both in found["runs"].items():
        told = rest | ({"share": found["shares"][what]} if what in found["shares"] else {})
        asked[f"{case.name}, {what}"] = {
            name: [{"ms": ms, **told} for ms in times] for name, times in both.items()
        }
    if memory:
        model = case.name.rpartition(", batch ")[0]
        asked[f"{model}, batch {settings['memory_batch']}, peak memory of a training step"] = {
            name: [{"mb": one[name][0], "files_mb": one[name][1], **rest} for one in memory]
            for name in memory[0]
        }
    return [
        common.Job(f"{name}: {what}", "vision", case.python, settings, runs)
        for what, both in asked.items()
        for name, runs in both.items()
    ]


def run_all(cases: list[common.Job], options: argparse.Namespace) -> list[common.Job]:
    """All cases, but for those that a former run has finished."""
    kept: dict[str, list[dict[str, object]]] = {}
    partial = common.RESULTS / f"{options.name}.partial.json"
    if options.resume and partial.exists():
        kept = json.loads(partial.read_text(encoding="utf-8"))
    jobs = []
    for case in cases:
        if case.name not in kept:
            done = run(case, options.threads, options.memory_runs)
            kept[case.name] = [asdict(job) | {"python": ""} for job in done]
            partial.write_text(json.dumps(kept), encoding="utf-8")
        jobs += [common.Job(**job) for job in kept[case.name]]
    return jobs


def text(jobs: list[common.Job]) -> str:
    """The result as Markdown: a table for each type of number, a row for each model."""
    pairs: dict[tuple[str, str, str], tuple[common.Job, common.Job]] = {}
    for ours, theirs in zip(jobs[::2], jobs[1::2], strict=True):
        model, dtype, question = ours.name.partition(": ")[2].split(", ", 2)
        pairs[dtype, model, question] = (ours, theirs)
    parts = []
    for dtype in dict.fromkeys(one[0] for one in pairs):
        kind = {key[1:]: pair for key, pair in pairs.items() if key[0] == dtype}
        questions = sorted({question for _, question in kind}, key=lambda one: ("memory" in one, one))
        wasted = any(model in WASTED for model, _ in kind)
        rows = [
            [
                model,
                *(_cell(kind.get((model, question))) for question in questions),
                *([_shares([kind.get((model, question)) for question in questions])] if wasted else []),
            ]
            for model in MODELS
            if any(model == one for one, _ in kind)
        ]
        header = ["model", *questions, *(["what both pay"] if wasted else [])]
        parts.append(f"### {dtype}\n\n{common.markdown_table(header, rows)}")
    dtypes = {dtype for dtype, _, _ in pairs}
    notes = [_about()]
    notes += [WHY_NOT] if "float32" in dtypes else []
    notes += [EMULATED] if "bfloat16" in dtypes else []
    return "\n\n".join(parts + notes)


def _cell(pair: tuple[common.Job, common.Job] | None) -> str:
    """Ratio, and both medians."""
    if pair is None:
        return "–"
    key, unit = ("mb", "MB") if "memory" in pair[0].name else ("ms", "ms")
    both = " / ".join(f"{common.median(job, key):,.0f}" for job in pair)
    known = all("files_mb" in job.runs[0] for job in pair)
    files = " / ".join(f"{common.median(job, 'files_mb'):.0f}" for job in pair) if known else ""
    of_files = f", of files {files}" if files else ""
    return f"{common.ratio(*pair, key)} ({both} {unit}{of_files})"


def _shares(pairs: list[tuple[common.Job, common.Job] | None]) -> str:
    """The parts of the peer's times that both pay, in the order of the questions."""
    found = [pair[1].runs[0].get("share") for pair in pairs if pair is not None]
    return " / ".join(f"{one:.2f}" for one in found if one is not None)


def _about() -> str:
    """What the figures are."""
    peers = "; ".join(f"{model} beside {peer}" for model, peer in MODELS.items())
    wasted = "; ".join(f"{model} {why}" for model, why in WASTED.items())
    return (
        "Ours over the peer's, with the medians of both in CPU milliseconds of one thread; the JSON has every"
        f" run. {peers}. Both have the same weights, and their logits are compared first (but for ECA-Net's"
        " peer, which has 5 taps in every gate, EfficientViT's and SHViT's, whose names differ); images of"
        " the published size; stochastic depth is off; bfloat16 by autocast. A training step is forward, loss"
        " and backward, without an optimiser, and needs two images where batch norm follows the pooling; its"
        " peak memory, with all libraries, is that of a second step in a process of its own; *of files* are"
        " pages of libraries that the process has touched, which all processes share. The goal is 1.05 or"
        " less, for memory 1 or less; the JSON names the commit of each run. Where the peer spends more"
        f" than its arithmetic asks for, the goal is 0.67: {wasted}."
        " *What both pay* is the part of the peer's time, in the order of the columns, that its convolutions,"
        " linear layers, norms and activations take (torch.profiler): no ratio falls below it while both call"
        " the same ones."
    )


def main() -> None:
    """Run and record."""
    parser = common.parser(__doc__, repeats=3)
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--memory-batch", type=int, default=2, help="0 measures no memory")
    parser.add_argument("--memory-runs", type=int, default=1, help="times that memory is measured")
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--official", default="", help="folder with clones of official repositories")
    parser.add_argument("--name", default="vision_cpu", help="of the result file")
    parser.add_argument("--title", default="Backbones on a CPU")
    parser.add_argument("--resume", action="store_true", help="keep what a former run has finished")
    parser.add_argument("--update", action="store_true", help="leave the rest of the recorded result")
    options = parser.parse_args()
    jobs = run_all(common.available(make_cases(options), options.only), options)
    if options.update:
        jobs = list((common.recorded(options.name) | {job.name: job for job in jobs}).values())
    common.record(options.name, options.title, text(jobs), jobs, options, script="vision_cpu")
    if not options.dry:
        (common.RESULTS / f"{options.name}.partial.json").unlink()


if __name__ == "__main__":
    main()
