"""Relation extraction: BioIE (reconstructed) beside logistic regression on words and a look-up of names.

python benchmarks/bioie.py --root DATA --set ternary

One set at a time: `ternary` and `binary` are fold 0 of the drug-gene-mutation sets as published (training and
test share texts), `ternary-clean` and `binary-clean` the same test instances without the training instances
that share a text with them; `chemprot`; `cdr`, with every chemical and disease that a document mentions as a
pair.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch

from graphrec.graph.relations import RelationExtractor, relation_metrics
from graphrec.graph.relations.tfidf import Blend
from graphrec.pipelines.index_splits import IndexSplit
from graphrec.pipelines.relations import RelationSet, join_parts, read_nary_folds, read_relations
from graphrec.pipelines.relations.pubtator import count_unreachable

Task = tuple[RelationSet, IndexSplit, int]
CDR = [f"bc5cdr/CDR_{part}Set.PubTator.txt.gz" for part in ("Training", "Development", "Test")]
CHEMPROT = [f"chemprot/{part}.jsonl" for part in ("train", "dev", "test")]

SHARED = {"mark_dim": 0, "place_dim": 0}
SETTINGS: dict[str, dict[str, Any]] = {
    "ternary": {"epochs": 2},
    "binary": {"epochs": 4},
    "chemprot": {"epochs": 6},
    "cdr": {"epochs": 3, "monitor": "f1_macro", "class_weight": "balanced", "model_options": SHARED},
}
NOTES = {
    "ternary": "Five classes, fold 0, 1,474 test instances. Published for AGGCN with GloVe, mean of five"
    " folds: 79.7. The labels come from a knowledge base of drugs, genes and mutations, so names alone tell"
    " much.",
    "binary": "Five classes, fold 0. Published for AGGCN with GloVe, mean of five folds: 77.4.",
    "chemprot": "13 classes, no negative one, no parses: edges join each token to the three before and after"
    " it. Not the task that published figures are of, which has negative pairs.",
    "cdr": "Training set trains, development set chooses the epoch, 500 test abstracts; no parses, windows as"
    " edges. Relations whose chemical or disease no mention names count as missed. F1 is of the relation.",
}


def load(name: str, root: Path) -> Task:
    """The set, its split, and true test relations without an instance."""
    base = name.removesuffix("-clean")
    if base in ("ternary", "binary"):
        relations, folds = read_nary_folds(root / "pubmed_nary" / base, drop_shared=base != name)
        return relations, folds[0], 0
    files = [root / file for file in (CDR if name == "cdr" else CHEMPROT)]
    relations, split = join_parts(*(read_relations(file) for file in files))
    return relations, split, count_unreachable(files[2]) if name == "cdr" else 0


def names_of(relations: RelationSet, index: int) -> tuple[str, ...]:
    """The first mention of each entity."""
    first: dict[int, str] = {}
    tokens = relations.tokens(index)
    for _, entity, a, b in relations.spans[
        relations.span_ptr[index] : relations.span_ptr[index + 1]
    ].tolist():
        first.setdefault(entity, " ".join(tokens[a:b]).lower())
    return tuple(first.get(k, "") for k in range(relations.num_entities))


def look_up(task: Task) -> dict[str, Any]:
    """The most frequent training class of the same names, else of all."""
    relations, split, unreachable = task
    seen: dict[tuple[str, ...], Counter[int]] = {}
    for i in split.train.tolist():
        seen.setdefault(names_of(relations, i), Counter())[int(relations.y[i])] += 1
    most = int(torch.bincount(relations.y[split.train]).argmax())
    guess = [
        seen[names].most_common(1)[0][0] if (names := names_of(relations, i)) in seen else most
        for i in split.test.tolist()
    ]
    p = np.eye(len(relations.classes))[guess]
    return relation_metrics(
        relations.y[split.test].numpy(), p, negative=negative_of(relations), unreachable=unreachable
    )


def negative_of(relations: RelationSet) -> int | None:
    """Number of the class without a relation."""
    return relations.classes.index("None") if "None" in relations.classes else None


def fit(
    model: str, task: Task, settings: dict[str, Any], seed: int, keep: Path | None
) -> dict[str, dict[str, Any]]:
    """Test metrics by name: of the regression, or of a network alone and averaged with the regression."""
    relations, split, unreachable = task
    start = time.process_time()
    whole = RelationExtractor(model, blend=model != "tfidf", random_state=seed, **settings)
    whole.fit(relations, split=split)
    about: dict[str, Any] = {"cpu": round(time.process_time() - start, 1), "epochs": len(whole.history_)}
    if keep is not None:
        whole.save(keep / f"{model}-{seed}", overwrite=True)
    parts = {model: whole}
    if isinstance(whole.module_, Blend):
        about["share"] = float(whole.module_.share)
        about["parameters"] = sum(p.numel() for p in whole.module_.network.parameters())
        alone = copy.copy(whole)
        alone.module_ = whole.module_.network
        parts = {model: alone, f"{model} and tfidf": whole}
    found = {n: e.evaluate(relations, index=split.test, unreachable=unreachable) for n, e in parts.items()}
    return {name: {**figures, **about} for name, figures in found.items()}


def row(job: common.Job) -> list[str]:
    """A line of the table."""

    def cell(key: str, times: float, digits: int) -> str:
        value = common.median(job, key)
        return "–" if value is None else f"{times * value:,.{digits}f}"

    shares = [cell(key, 100, 1) for key in ("accuracy", "f1_macro", "f1")]
    return [job.name, *shares, cell("epochs", 1, 0), cell("parameters", 1, 0), cell("cpu", 1, 0)]


def main() -> None:
    """Run and record."""
    options = common.parser(__doc__, repeats=1)
    options.add_argument("--root", type=Path, required=True, help="folder of the data sets")
    options.add_argument("--set", choices=[*NOTES, "ternary-clean", "binary-clean"], required=True)
    options.add_argument("--models", nargs="+", default=["tfidf", "bioie"])
    options.add_argument("--keep", type=Path, help="folder for the fitted models")
    options.add_argument("--epochs", type=int, help="in place of the estimator's")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    base = given.set.removesuffix("-clean")
    task = load(given.set, given.root)
    versions = {name: version(name) for name in ("torch", "scikit-learn", "graphrec")}
    more = {"load": round(os.getloadavg()[0], 1), "versions": versions}
    names = common.Job("names alone", "bioie", sys.executable, {"set": given.set})
    names.runs.append({**look_up(task), **more})
    jobs = [names]
    for model in given.models:
        settings = dict(SETTINGS[base])
        if model == "tfidf":
            settings = {k: v for k, v in settings.items() if k == "class_weight"}
        elif given.epochs:
            settings["epochs"] = given.epochs
        made: dict[str, common.Job] = {}
        for seed in range(given.repeats):
            for name, figures in fit(model, task, settings, seed, given.keep).items():
                job = made.setdefault(
                    name, common.Job(name, "bioie", sys.executable, {"set": given.set, **settings})
                )
                job.runs.append({**figures, "seed": seed, **more})
                print(given.set, name, json.dumps(job.runs[-1]), file=sys.stderr, flush=True)
        jobs += made.values()
    header = ["model", "accuracy", "macro F1", "F1 of relations", "epochs", "parameters", "CPU s to fit"]
    split = f"{len(task[1].train):,} instances train, {len(task[1].valid):,} validate. "
    clean = "No training text is a test text. " if given.set != base else ""
    about = f'{clean}{split}{NOTES[base]} Accuracy is micro F1. "and tfidf":'
    about += " probabilities averaged, the share chosen on the validation instances."
    text = f"{common.markdown_table(header, map(row, jobs))}\n\n{about}"
    name = f"bioie_{given.set.replace('-', '_')}"
    common.record(name, f"Relation extraction: {given.set}", text, jobs, given, "bioie")


if __name__ == "__main__":
    main()
