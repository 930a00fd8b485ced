"""Relation instances from parsed JSON, ChemProt and PubTator: tokens, heads, entities, labels and folds."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from graph_tools import write

from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.relations import (
    RelationSet,
    join_parts,
    read_chemprot,
    read_nary,
    read_nary_folds,
    read_pubtator,
    split_by_text,
    tokenise,
)
from graphrec.pipelines.relations.pubtator import count_unreachable


def row(text: str = "a drug helps b", relation: str = "None", **change: Any) -> dict[str, Any]:
    tokens = text.split()
    return {
        "token": tokens,
        "stanford_pos": ["NN"] * len(tokens),
        "stanford_head": [2, 3, 0, *[3] * (len(tokens) - 4), -1][: len(tokens)],
        "stanford_deprel": ["det", "nsubj", "root", *["dobj"] * (len(tokens) - 4), "self"][: len(tokens)],
        "relation": relation,
        "first_start": 1,
        "first_end": 1,
        "second_start": 2,
        "second_end": 3,
    } | change


def nary(path: Path, rows: list[dict[str, Any]]) -> Path:
    raw = json.dumps(rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


@pytest.mark.parametrize("name", ["one.json", "one.json.gz"])
def test_parsed_instances(tmp_path: Path, name: str) -> None:
    found = read_nary(
        nary(tmp_path / name, [row(), row("a drug does not help b", "yes"), row(relation="yes")])
    )
    assert found.classes == ("None", "yes")
    assert found.y.tolist() == [0, 1, 1]
    assert found.text.tolist() == [0, 1, 0]
    assert found.tokens(1) == ["a", "drug", "does", "not", "help", "b"]
    batch = found.batch([1, 0])
    assert batch.mask.sum(1).tolist() == [6, 4]
    assert batch.head[1].tolist() == [1, 2, -1, -1, -1, -1]
    assert batch.word[1, 4:].tolist() == [0, 0]
    assert batch.entity[1].nonzero().tolist() == [[0, 1], [1, 2], [1, 3]]
    adjacency = batch.adjacency()
    assert torch.equal(adjacency, adjacency.transpose(1, 2))
    assert adjacency[1].nonzero().tolist() == [[0, 1], [1, 0], [1, 2], [2, 1]]
    dense = torch.zeros(12, 12)
    dense[tuple(batch.edge_index())] = 1
    assert torch.equal(dense[6:, 6:], adjacency[1])


def test_an_instance_is_the_same_alone_and_in_a_batch(tmp_path: Path) -> None:
    found = read_nary(nary(tmp_path / "one.json", [row(), row("a drug does not help b", "yes")]))
    alone, both = found.batch([0]), found.batch([1, 0])
    for key in ("word", "pos", "dep", "head"):
        assert torch.equal(getattr(alone, key)[0], getattr(both, key)[1, :4])
    assert torch.equal(alone.entity[0], both.entity[1, :, :4])


def test_two_classes_on_request(tmp_path: Path) -> None:
    rows = [row(), row(relation="response"), row(relation="resistance")]
    found = read_nary(nary(tmp_path / "one.json", rows), positive="Yes")
    assert found.classes == ("None", "Yes")
    assert found.y.tolist() == [0, 1, 1]
    with pytest.raises(DataError, match="instance 1: label 'response' is not one of None"):
        read_nary(tmp_path / "one.json", classes=["None"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (row(second_end=4), "instance 2: entity second at tokens 2 to 4 of 4"),
        (row(first_start=-1), "instance 2: entity first at tokens -1 to 1"),
        (row(stanford_head=[2, 3, 0, 9]), "instance 2: a head is not -1 to 4"),
        (row(stanford_head=[2, 3, 0]), "instance 2: 4 tokens, 4 parts of speech, 3 heads"),
        (row(relation=None), "instance 2: has no relation"),
        (row(relation=["a"]), "instance 2: relation must be a text"),
        (row(token="abcd"), "instance 2: token must be a list, found 'abcd'"),
        (row(token=["a", None, "c", "d"]), "instance 2: token: entry 2 must be a text, found None"),
        (row(stanford_head=[2, 3, 0, 1.5]), "instance 2: stanford_head: entry 4 must be a whole number"),
        (row(first_start=1.5), "instance 2: first_start must be a whole number, found 1.5"),
        ({k: v for k, v in row().items() if k != "second_end"}, "instance 2: has no second_end"),
    ],
)
def test_a_wrong_instance_is_named(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_nary(nary(tmp_path / "one.json", [row(), wrong]))
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    path = nary(tmp_path / "one.json.gz", [row()] * 50)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"one.json.gz: cannot be read .* cut short"):
        read_nary(path)
    plain = write(tmp_path / "one.json", json.dumps([row()])[:-9])
    with pytest.raises(DataError, match="line 1: broken JSON"):
        read_nary(plain)
    with pytest.raises(DataError, match="must hold a list of objects"):
        read_nary(write(tmp_path / "two.json", "{}"))


def folds(folder: Path) -> Path:
    for k in range(3):
        rows = [row(f"text {k} of {i} z", "yes" if i % 2 else "None") for i in range(20)]
        nary(folder / f"fold{k}.test.json", [*rows, row("shared by all folds")])
    return folder


def test_given_folds(tmp_path: Path) -> None:
    found, splits = read_nary_folds(folds(tmp_path), valid=0.25)
    assert [s.test.tolist() for s in splits] == [list(range(21 * k, 21 * k + 21)) for k in range(3)]
    for split in splits:
        assert len(split.left_out) == 0
        assert not set(found.text[split.train].tolist()) & set(found.text[split.valid].tolist())
        assert set(found.text[split.train].tolist()) | set(found.text[split.valid].tolist()) >= {
            found.text[20].item()
        }
    _, clean = read_nary_folds(tmp_path, drop_shared=True)
    for split in clean:
        assert len(split.left_out) == 2
        seen = set(found.text[torch.cat([split.train, split.valid])].tolist())
        assert not seen & set(found.text[split.test].tolist())
    with pytest.raises(DataError, match="holds 0 files fold<k>"):
        read_nary_folds(tmp_path / "none")


def test_vocabularies_come_from_training_texts(tmp_path: Path) -> None:
    found, splits = read_nary_folds(folds(tmp_path))
    words = found.vocabulary(splits[0].train, min_count=2)
    assert words[:2] == ("<pad>", "<unk>")
    assert "of" in words
    recoded = found.recoded(words)
    assert recoded.word[recoded.word == 1].numel() > 0
    known = {w: i for i, w in enumerate(words)}
    assert recoded.batch([0]).word[0].tolist() == [known.get(w, 1) for w in found.tokens(0)]
    assert found.vocabulary(splits[0].train, column="dep") == (
        "<pad>",
        "<unk>",
        *_by_count(found, splits[0].train),
    )
    with pytest.raises(ConfigError, match="column='words'"):
        found.vocabulary(splits[0].train, column="words")


def _by_count(found: RelationSet, index: torch.Tensor) -> list[str]:
    texts = set(found.text[index].tolist())
    parts = torch.cat([found.dep[found.text_ptr[t] : found.text_ptr[t + 1]] for t in sorted(texts)])
    codes, counts = parts.unique(return_counts=True)
    order = sorted(range(len(codes)), key=lambda i: (-int(counts[i]), int(codes[i])))
    return [found.dep_names[int(codes[i])] for i in order]


LINES = [
    {"text": "<< Alpha-1 >> blocks [[ beta (II) ]], they say.", "label": "INHIBITOR"},
    {"text": "The [[ gamma ]] of << delta >> > 3 >> 2.", "label": "AGONIST"},
]


def chemprot(path: Path, rows: list[Any]) -> Path:
    return write(path, "".join(json.dumps(r) + "\n" for r in rows))


def test_chemprot(tmp_path: Path) -> None:
    found = read_chemprot(chemprot(tmp_path / "c.jsonl", LINES))
    assert found.classes == ("AGONIST", "INHIBITOR")
    assert found.tokens(0) == tokenise("Alpha-1 blocks beta (II), they say.")[0]
    batch = found.batch([0, 1])
    assert batch.entity[0].nonzero().tolist() == [[0, 0], [0, 1], [0, 2], *[[1, i] for i in range(4, 8)]]
    assert [found.tokens(1)[i] for i in batch.entity[1].nonzero()[:, 1].tolist()] == ["delta", "gamma"]
    assert int(batch.adjacency().sum()) == 0
    chain = found.with_chain().batch([1])
    assert chain.head[0].tolist() == list(range(-1, 9))
    assert found.with_chain().dep_names == ("<pad>", "<unk>", "root", "next")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"text": "no marks", "label": "X"}, "line 2: entity 1 is not marked"),
        ({"text": "<< a >> [[ b", "label": "X"}, "line 2: entity 2 is not marked"),
        ({"text": "<<  >> [[ b ]]", "label": "X"}, "line 2: entity 1 is empty"),
        ({"text": "<< a >> [[ b ]]"}, r"line 2: must be an object with text and label \('label'\)"),
        ([1], "line 2: must be an object"),
        ({"text": None, "label": "X"}, "line 2: text must be a text, found None"),
        ({"text": "<< a >> [[ b ]]", "label": None}, "line 2: label must be a text, found None"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_chemprot(chemprot(tmp_path / "c.jsonl", [LINES[0], line]))


def test_parts_are_joined(tmp_path: Path) -> None:
    train = read_chemprot(chemprot(tmp_path / "a.jsonl", LINES))
    test = read_chemprot(
        chemprot(tmp_path / "b.jsonl", [LINES[1], {"text": "<< x >> [[ y ]]", "label": "NEW"}])
    )
    joined, split = join_parts(train, test=test)
    assert joined.classes == ("AGONIST", "INHIBITOR", "NEW")
    assert joined.y.tolist() == [
        0 if c == "AGONIST" else 1 if c == "INHIBITOR" else 2
        for c in ["INHIBITOR", "AGONIST", "AGONIST", "NEW"]
    ]
    assert (split.train.tolist(), split.valid.tolist(), split.test.tolist()) == ([0, 1], [], [2, 3])
    assert joined.tokens(3) == ["x", "y"]
    assert torch.equal(joined.batch([2]).entity, train.batch([1]).entity)
    assert joined.recoded(joined.vocabulary(split.train)).batch([3]).word.tolist() == [[1, 1]]


ABSTRACT = """\
7|t|Lithium toxicity.
7|a|Lithium, not aspirin, caused goitre and toxicity.
7\t0\t7\tLithium\tChemical\tC1
7\t8\t16\ttoxicity\tDisease\tD1
7\t18\t25\tLithium\tChemical\tC1
7\t31\t38\taspirin\tChemical\tC2
7\t47\t53\tgoitre\tDisease\tD2|D3
7\t58\t66\ttoxicity\tDisease\t-1
7\tCID\tC1\tD1
7\tCID\tC9\tD1

"""


def test_pubtator(tmp_path: Path) -> None:
    path = tmp_path / "cdr.txt.gz"
    path.write_bytes(gzip.compress(ABSTRACT.encode()))
    found = read_pubtator(path)
    assert len(found) == 2 * 3
    assert found.classes == ("None", "CID")
    assert found.y.tolist() == [1, 0, 0, 0, 0, 0]
    assert found.text.unique().tolist() == [0]
    entity = found.batch([0]).entity[0]
    assert [found.tokens(0)[i] for i in entity[0].nonzero().flatten().tolist()] == ["Lithium", "Lithium"]
    assert [found.tokens(0)[i] for i in entity[1].nonzero().flatten().tolist()] == ["toxicity"]
    assert count_unreachable(path) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("7\t31\t38", "7\t30\t38", "line 6: the text has ' aspirin' at 30 to 38, not 'aspirin'"),
        ("7\t0\t7\tLithium\tChemical\tC1", "7\t0\t7\tLithium", "line 3: must be six fields"),
        ("7\t0", "8\t0", "line 3: does not belong to the document above it"),
        ("7\t0\t7\tLithium", "7\t0\t0\t", "line 3: a mention from 0 to 0 has no characters"),
        ("7\t0\t7", "7\t²\t7", "line 3: must be six fields"),
        ("7|a|", "8|a|", "line 2: an abstract without its title"),
        (ABSTRACT[18:], "", "the last document has no abstract; cut short"),
        (ABSTRACT, "\n", "holds no documents"),
    ],
)
def test_a_broken_document_names_the_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_pubtator(write(tmp_path / "cdr.txt", ABSTRACT.replace(old, new)))


def test_texts_stay_together(tmp_path: Path) -> None:
    rows = [row(f"text {i // 3} is here z", "yes" if i % 2 else "None") for i in range(60)]
    found = read_nary(nary(tmp_path / "one.json", rows))
    split = split_by_text(found, 0.2, 0.3, seed=1)
    assert (len(split.train), len(split.valid), len(split.test)) == (30, 12, 18)
    parts = [set(found.text[i].tolist()) for i in (split.train, split.valid, split.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 20
    loader = found.loader(split.train, 8, shuffle=True, seed=2)
    assert sum(len(b) for b in loader) == 30
    assert len(loader) == 4


def test_tokens_lose_nothing_but_space() -> None:
    tokens, first, last = tokenise("IL-2, (β)  50%")
    assert tokens == ["IL", "-", "2", ",", "(", "β", ")", "50", "%"]
    assert ["IL-2, (β)  50%"[a:b] for a, b in zip(first, last, strict=True)] == tokens


def test_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    """Not at other separators of Unicode, which occur inside of texts; a byte order mark is no text."""
    odd = LINES[0]["text"].replace("they", "\u2028they\x85")
    rows = [json.dumps({**LINES[0], "text": odd}, ensure_ascii=False), json.dumps(LINES[1])]
    for name, text in (("unix", "\n".join(rows)), ("windows", "\ufeff" + "\r\n".join(rows) + "\r\n")):
        (tmp_path / f"{name}.jsonl").write_bytes(text.encode())
        found = read_chemprot(tmp_path / f"{name}.jsonl")
        assert found.tokens(0) == tokenise("Alpha-1 blocks beta (II), they say.")[0]
        assert len(found) == 2
    marked = "\ufeff" + ABSTRACT.replace("not aspirin", "not\u2028aspirin")
    assert len(read_pubtator(write(tmp_path / "cdr.txt", marked))) == 6


def test_classes_are_different_texts(tmp_path: Path) -> None:
    for wrong in ("yes", ["yes", "yes"]):
        with pytest.raises(DataError, match="classes must be a list of different texts"):
            read_nary(nary(tmp_path / "one.json", [row()]), classes=wrong)
