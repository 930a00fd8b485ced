"""Instances end to end, word vectors, and files told by their names."""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from graph_tools import write
from scipy.sparse import csr_array

from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.relations import (
    RelationSet,
    neighbour_vectors,
    pack,
    read_relations,
    read_vectors,
    shortest_stretches,
    word_pieces,
)
from graphrec.pipelines.relations.builder import Builder
from graphrec.pipelines.relations.neighbour_vectors import _information


def relations() -> RelationSet:
    builder = Builder("some", 2)
    long = builder.add_text(["A", "b", "c", "D", "b"], ["N"] * 5, ["x"] * 5, [1, -1, 1, -1, 3])
    short = builder.add_text(["a"], ["N"], ["x"], [-1])
    builder.add_instance(long, [(1, 3, 5), (0, 0, 1), (0, 2, 3)], "yes")
    builder.add_instance(short, [(0, 0, 1)], "no")
    builder.add_instance(long, [(0, 1, 2), (1, 1, 3)], "no")
    return builder.finish()


@pytest.mark.parametrize("index", [[0, 1, 2], [2, 1], [1], [0, 0]])
def test_packed_is_the_padded_batch(index: list[int]) -> None:
    found = relations()
    padded, packed = found.batch(index), pack(found, index)
    assert packed.ptr.diff().tolist() == padded.mask.sum(1).tolist()
    for name in ("word", "pos", "dep"):
        assert torch.equal(getattr(packed, name), getattr(padded, name)[padded.mask])
    assert torch.equal(packed.mark, padded.entity.transpose(1, 2)[padded.mask])
    assert torch.equal(packed.labels, padded.y)
    for i in range(len(index)):
        for k in range(2):
            slot = slice(*packed.member_ptr[i * 2 + k : i * 2 + k + 2].tolist())
            wanted = padded.entity[i, k].nonzero().flatten() + packed.ptr[i]
            assert sorted(packed.member[slot].tolist()) == wanted.tolist()
        own = packed.head[packed.ptr[i] : packed.ptr[i + 1]]
        wanted = padded.head[i][padded.mask[i]]
        assert torch.equal(own - packed.ptr[i] * (own >= 0), wanted)


def test_shared_rows() -> None:
    packed = pack(relations(), [2, 1, 0], shared=True)
    assert packed.row.tolist() == [0, 1, 0]
    assert packed.ptr.tolist() == [0, 5, 6]
    assert not packed.mark.any()
    parts = [packed.member[a:b].tolist() for a, b in pairwise(packed.member_ptr)]
    assert [sorted(p) for p in parts] == [[1], [1, 2], [5], [], [0, 2], [3, 4]]


def test_no_instances() -> None:
    packed = pack(relations(), [])
    assert len(packed.word) == len(packed.labels) == 0
    assert packed.ptr.tolist() == packed.member_ptr.tolist() == [0]


def test_lower_case_vocabularies() -> None:
    found = relations()
    words = found.vocabulary([0, 1, 2], min_count=2, lower=True)
    assert words == ("<pad>", "<unk>", "a", "b")
    assert found.vocabulary([0, 1, 2], min_count=2) == ("<pad>", "<unk>", "b")
    assert pack(found.recoded(words, lower=True), [1, 0]).word.tolist() == [2, 2, 3, 1, 1, 3]
    assert pack(found.recoded(words), [1, 0]).word.tolist() == [2, 1, 3, 1, 1, 3]


def test_vectors(tmp_path: Path) -> None:
    words = ["<pad>", "<unk>", "b", "a"]
    text = "4 3\na 1 2 3\nb .5 -1 1e2\nc 0 0 0\n"
    plain = write(tmp_path / "v.txt", text)
    packed = tmp_path / "v.txt.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    np.save(tmp_path / "v.npy", np.array([[0.5, -1, 100], [1, 2, 3], [7, 7, 7]]))
    names = write(tmp_path / "names.txt", "b\na\nz\n")
    lone = write(tmp_path / "lone.txt", "b 2\nx\x85y 3\n")  # no header, and a word of GloVe's kind
    assert read_vectors(lone, ["b", "x\x85y"])[0].tolist() == [[2], [3]]
    for found in (
        read_vectors(plain, words),
        read_vectors(packed, words),
        read_vectors(tmp_path / "v.npy", words, names=names),
    ):
        assert found[0].tolist() == [[0, 0, 0], [0, 0, 0], [0.5, -1, 100], [1, 2, 3]]
        assert found[1].tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 1 2\nb 1\n", "v.txt: line 2: has 1 numbers, the first line has 2"),
        ("a 1 2\nb 1 two\n", "v.txt: line 2: holds something that is no number"),
        ("a 1 2\nb\t1\t2\n", "line 2: has 0 numbers"),
        ("a 1 2\nb nan 2\n", "v.txt: line 2: the vector of 'b' is not finite"),
        ("z 1 2\n", "has a vector for none of the 2 words"),
        ("", "has a vector for none"),
    ],
)
def test_broken_vectors_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_vectors(write(tmp_path / "v.txt", text), ["a", "b"])


def test_broken_matrices(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.zeros((2, 3)))
    with pytest.raises(DataError, match="needs names="):
        read_vectors(tmp_path / "v.npy", ["a"])
    with pytest.raises(DataError, match=r"float64 of shape \(2, 3\); must be numbers of shape \(1, width\)"):
        read_vectors(tmp_path / "v.npy", ["a"], names=write(tmp_path / "names.txt", "a\n"))
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read as a numpy array"):
        read_vectors(tmp_path / "o.npy", ["a"], names=tmp_path / "names.txt")


def test_files_by_their_names(tmp_path: Path) -> None:
    line = '{"text": "<< a >> blocks [[ b ]]", "label": "X"}\n'
    assert read_relations(write(tmp_path / "c.jsonl", line)).classes == ("X",)
    odd = write(tmp_path / "c.data", line)
    assert len(read_relations(odd, format="chemprot")) == 1
    with pytest.raises(DataError, match=r"c.data: the name does not end in .jsonl, .json"):
        read_relations(odd)
    with pytest.raises(ConfigError, match="format='bert': must be one of chemprot, nary, pubtator"):
        read_relations(odd, format="bert")
    abstract = (
        "7|t|Lithium toxicity.\n7|a|x\n7\t0\t7\tLithium\tChemical\tC1\n7\t8\t16\ttoxicity\tDisease\tD1\n"
    )
    assert read_relations(write(tmp_path / "d.PubTator", abstract), negative="no").classes == ("no", "CID")


def test_codes_of_words_that_a_vocabulary_lacks() -> None:
    found = relations().recoded(("<pad>", "<unk>", "b"), lower=True, keep=True)
    assert found.words[:3] == ("<pad>", "<unk>", "b")
    assert sorted(found.words[3:]) == ["a", "c", "d"]
    assert [found.words[c] for c in pack(found, [0]).word.tolist()] == ["a", "b", "c", "d", "b"]


def test_pieces_are_beginnings_and_ends() -> None:
    words = ["<pad>", "<unk>", "of", "cat", "inhibits", "inhibitor", "rabbits"]
    found = word_pieces(words, 1 << 30)
    own = [set(found.ids[a:b].tolist()) for a, b in pairwise(found.ptr)]
    assert [len(one) for one in own] == [0, 0, 0, 2, 6, 6, 6]
    assert len(own[4] & own[5]) == 4  # inh, inhi, inhib, inhibi
    assert len(own[4] & own[6]) == 2  # its, bits
    assert int(word_pieces(words, 7).ids.max()) < 7
    some = found.of(torch.tensor([5, 2, 3]))
    assert some.ptr.tolist() == [0, 6, 6, 8]
    assert set(some.ids[:6].tolist()) == own[5]


@pytest.mark.parametrize("seed", range(5))
def test_shortest_stretches_are_those_of_a_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    builder, wanted = Builder("many", 3), []
    for _ in range(40):
        size = int(rng.integers(1, 12))
        spans = []
        for k in np.repeat(np.arange(3), rng.integers(0, 4, 3)).tolist():
            first = int(rng.integers(size))
            spans.append((k, first, int(rng.integers(first + 1, size + 1))))
        builder.add_instance(builder.add_text(["w"] * size), spans, "a")
        inside = [
            (b - a, a, b)
            for a in range(size)
            for b in range(a + 1, size + 1)
            if {k for k, x, y in spans if a <= x and y <= b} == {0, 1, 2}
        ]
        wanted.append(list(min(inside)[1:]) if inside else [0, 0])
    assert shortest_stretches(builder.finish()).tolist() == wanted


def test_vectors_of_neighbours() -> None:
    """Words that stand among the same words are near each other; the matrix is what its formula says."""
    rng = np.random.default_rng(0)
    builder = Builder("two kinds", 1)
    for _ in range(200):
        kind = int(rng.integers(2))
        builder.add_text([f"{'ab'[kind]}{rng.integers(6)}" for _ in range(6)])
    builder.add_instance(0, [(0, 0, 1)], "a")
    found = builder.finish(["a", "b"])
    vectors, known = neighbour_vectors(found, torch.arange(200), 3)
    assert known.tolist() == [False, False] + [True] * 12
    kind = np.array([word[0] for word in found.words])[2:]
    unit = vectors[2:] / np.linalg.norm(vectors[2:], axis=1, keepdims=True)
    cosine = unit @ unit.T
    assert cosine[kind[:, None] == kind].min() > cosine[kind[:, None] != kind].max()
    counts = np.array([[0, 4, 1], [4, 0, 0], [1, 0, 2.0]])
    smooth = counts.sum(0) ** 0.75
    share = smooth / smooth.sum()
    with np.errstate(divide="ignore"):
        formula = np.maximum(np.log(counts / counts.sum(1, keepdims=True) / share), 0)
    np.testing.assert_allclose(_information(csr_array(counts)).toarray(), formula)
    assert not neighbour_vectors(found, torch.arange(200), 14)[1].any()
    assert not neighbour_vectors(found, torch.arange(0), 3)[1].any()
