"""Make synthetic click data like Criteo's: 13 numeric and 26 skewed categorical columns and an int8 label.

    python benchmarks/make_ctr.py 1000000 data/ctr_1m.parquet --split data/split_1m

- 3 to 100,000 values a category, drawn by a Zipf law (exponent 1.05 to 1.3), stored as 8 hexadecimal digits;
  0 to 40 % null. Numbers are log-normal counts, 0 to 45 % null, as float32.
- The label is Bernoulli of a logit with main effects, 12 pairwise interactions of categories (products of
  latent vectors), 3 of a category with a number, and one of three columns; about 32 % are positive. What the
  true probabilities reach (AUC, logloss) is kept in the file's metadata under ``ctr_meta``.
- A row depends on the seed and its block of 100,000 rows alone: a shorter file is the beginning of a longer
  one. Memory does not grow with the rows, apart from their labels and probabilities.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SIZES = [
    *(100000, 100000, 60000, 40000, 30000, 20000, 15000, 10000, 10000, 6000, 5000, 4000, 3000),
    *(2000, 1500, 1000, 600, 500, 300, 200, 100, 50, 27, 18, 10, 3),
]
EXPONENTS = [
    *(1.05, 1.10, 1.10, 1.05, 1.15, 1.10, 1.20, 1.05, 1.15, 1.10, 1.10, 1.20, 1.15),
    *(1.10, 1.05, 1.10, 1.20, 1.30, 1.10, 1.10, 1.20, 1.10, 1.10, 1.10, 1.10, 1.10),
]
NULL_CATEGORIES = [
    *(0, 0, 0.03, 0.03, 0, 0.12, 0, 0, 0, 0, 0.05, 0, 0),
    *(0, 0, 0, 0, 0.40, 0.40, 0, 0.40, 0.1, 0, 0, 0, 0),
]
NULL_NUMBERS = [0.45, 0, 0.21, 0.21, 0.03, 0.22, 0.04, 0, 0.04, 0.45, 0.04, 0.40, 0.2]
PAIRS = [
    *((0, 6), (1, 9), (2, 15), (3, 22), (4, 12), (5, 20)),
    *((7, 14), (8, 17), (10, 19), (11, 23), (13, 24), (16, 18)),
]
CATEGORY_NUMBER = [(15, 2), (21, 5), (23, 8)]
LATENT = 4
BLOCK = 100_000
NAMES = ["label", *(f"I{i}" for i in range(1, 14)), *(f"C{i}" for i in range(1, 27))]


@dataclass
class Category:
    """One categorical column: cumulative probabilities, order, effect and latent vector of the ids."""

    cumulative: np.ndarray
    order: np.ndarray
    effect: np.ndarray
    latent: np.ndarray


class World:
    """The true model behind the labels; all of it follows from the seed."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.categories = [self._category(random, *pair) for pair in zip(SIZES, EXPONENTS, strict=True)]
        self.pair_weights = random.uniform(0.8, 1.4, 12)
        self.number_weights = random.normal(0, 0.25, 13)
        self.means = random.uniform(0.3, 3.0, 13)
        self.deviations = random.uniform(0.6, 1.6, 13)

    @staticmethod
    def _category(random: np.random.Generator, size: int, exponent: float) -> Category:
        weights = 1 / np.arange(1, size + 1) ** exponent
        order = random.permutation(size).astype(np.uint64)
        effect = random.normal(0, 0.30, size + 1)  # the last one is that of null
        effect[size] = 0.1
        latent = random.normal(0, 1, (size + 1, LATENT)) / np.sqrt(LATENT)
        cumulative = np.cumsum(weights / weights.sum())
        return Category(cumulative, order, effect.astype(np.float32), latent.astype(np.float32))


def draw_categories(
    random: np.random.Generator, world: World, rows: int
) -> tuple[list[np.ndarray], dict[str, pa.Array]]:
    """Ids of every categorical column (null is the last id), and the columns as text."""
    ids, columns = [], {}
    for j, category in enumerate(world.categories):
        size = len(category.order)
        drawn = np.minimum(np.searchsorted(category.cumulative, random.random(rows)), size - 1)
        null = random.random(rows) < NULL_CATEGORIES[j]
        drawn = np.where(null, size, drawn)
        number = category.order[np.minimum(drawn, size - 1)]
        hashed = (number * np.uint64(2654435761) + np.uint64(97531 * (j + 1))) & np.uint64(0xFFFFFFFF)
        columns[f"C{j + 1}"] = pa.array(np.char.mod("%08x", hashed.astype(np.int64)), mask=null)
        ids.append(drawn)
    return ids, columns


def draw_numbers(
    random: np.random.Generator, world: World, rows: int
) -> tuple[list[np.ndarray], list[np.ndarray], dict[str, pa.Array]]:
    """Standardised logarithms (0 where null), null masks, and the numeric columns."""
    scaled, nulls, columns = [], [], {}
    for j in range(13):
        mean, deviation = world.means[j], world.deviations[j]
        values = np.floor(np.exp(mean + deviation * random.normal(size=rows))) - (1 if j == 1 else 0)
        null = random.random(rows) < NULL_NUMBERS[j]
        logs = (np.log1p(np.maximum(values, 0)) - mean) / deviation
        scaled.append(np.where(null, 0, logs).astype(np.float32))
        nulls.append(null)
        columns[f"I{j + 1}"] = pa.array(values.astype(np.float32), mask=null)
    return scaled, nulls, columns


def true_logits(
    world: World, ids: list[np.ndarray], scaled: list[np.ndarray], nulls: list[np.ndarray]
) -> np.ndarray:
    """(rows,) logits; the order of the sums is part of the data's definition."""
    logits = np.zeros(len(ids[0]), np.float32)
    for category, drawn in zip(world.categories, ids, strict=True):
        logits += 0.5 * category.effect[drawn]
    latent = [category.latent[drawn] for category, drawn in zip(world.categories, ids, strict=True)]
    for weight, (a, b) in zip(world.pair_weights, PAIRS, strict=True):
        logits += weight * (latent[a] * latent[b]).sum(1) * 2
    for j in range(13):
        logits += world.number_weights[j] * scaled[j] + 0.15 * nulls[j] * (1 if j % 2 else -1)
    for a, b in CATEGORY_NUMBER:
        logits += 0.5 * latent[a][:, 0] * 2 * scaled[b]
    logits += 0.6 * np.sign(latent[15][:, 1] * latent[20][:, 1]) * np.tanh(scaled[4])
    return 0.6 * logits - 1.45


def make_block(index: int, seed: int, world: World) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """One block as a table, its labels and their true probabilities."""
    random = np.random.default_rng([seed, index])
    ids, columns = draw_categories(random, world, BLOCK)
    scaled, nulls, numbers = draw_numbers(random, world, BLOCK)
    probability = 1 / (1 + np.exp(-true_logits(world, ids, scaled, nulls)))
    label = (random.random(BLOCK) < probability).astype(np.int8)
    columns |= numbers | {"label": pa.array(label)}
    return pa.table({name: columns[name] for name in NAMES}), label, probability


def auc(label: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve."""
    rank = np.empty(len(score))
    rank[np.argsort(score, kind="stable")] = np.arange(1, len(score) + 1)
    positive = label.sum()
    lost = positive * (positive + 1) / 2
    return float((rank[label == 1].sum() - lost) / (positive * (len(label) - positive)))


def facts(rows: int, seed: int, label: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Base rate and what the true probabilities reach, on all rows and on the last tenth."""
    last = -len(label) // 10
    likelihood = np.where(label[last:] == 1, np.log(probability[last:]), np.log1p(-probability[last:]))
    return {
        "rows": rows,
        "seed": seed,
        "base_rate": float(label.mean()),
        "bayes_auc": auc(label, probability),
        "bayes_auc_last10pct": auc(label[last:], probability[last:]),
        "bayes_logloss_last10pct": float(-np.mean(likelihood)),
    }


def make(rows: int, path: Path, seed: int) -> dict[str, float]:
    """Write the file, one row group a block, and return its `facts`."""
    world, labels, probabilities = World(seed), [], []
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = None
    for index in range(-(-rows // BLOCK)):
        count = min(BLOCK, rows - index * BLOCK)
        block, label, probability = make_block(index, seed, world)
        writer = writer or pq.ParquetWriter(path, block.schema, compression="zstd")
        writer.write_table(block.slice(0, count))
        labels.append(label[:count])
        probabilities.append(probability[:count])
    found = facts(rows, seed, np.concatenate(labels), np.concatenate(probabilities))
    if writer:
        writer.add_key_value_metadata({"ctr_meta": json.dumps(found)})
        writer.close()
    return found


def split(path: Path, folder: Path) -> None:
    """Write the first 80 %, the next 10 % and the last 10 % of the rows as files of their own."""
    table = pq.read_table(path)
    folder.mkdir(parents=True, exist_ok=True)
    first, second = int(0.8 * len(table)), int(0.9 * len(table))
    for name, start, stop in (("train", 0, first), ("valid", first, second), ("test", second, len(table))):
        part = table.slice(start, stop - start)
        pq.write_table(part, folder / f"{name}.parquet", compression="zstd", row_group_size=BLOCK)


def main() -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", type=int)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--split", type=Path, metavar="FOLDER", help="also write train, valid and test files")
    options = parser.parse_args()
    print(json.dumps(make(options.rows, options.path, options.seed)))
    if options.split:
        split(options.path, options.split)


if __name__ == "__main__":
    main()
