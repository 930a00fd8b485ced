"""`HypergraphClassifier`: it learns what it should, is saved and loaded, and says what is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypergraph_tools import clubs
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from graphrec.errors import ConfigError, DataError, NonFiniteLossError, RunError
from graphrec.graph.hypergraph import HypergraphClassifier, production, transductive
from graphrec.graph.hypergraph.stages import MODELS
from graphrec.pipelines.hypergraphs import Hypergraph, from_edge_lists, transductive_split
from graphrec.pipelines.index_splits import IndexSplit

FAST: dict[str, Any] = {"epochs": 100, "normalize": None, "random_state": 0}


@pytest.fixture(scope="module")
def graph() -> Hypergraph:
    return clubs()


@pytest.fixture(scope="module")
def split(graph: Hypergraph) -> IndexSplit:
    return transductive_split(graph, train=4, valid=10, seed=0)


@pytest.fixture(scope="module")
def fitted(graph: Hypergraph, split: IndexSplit) -> dict[str, HypergraphClassifier]:
    return {name: HypergraphClassifier(name, **FAST).fit(graph, split=split) for name in MODELS}


def test_student_learns_what_a_perceptron_cannot(
    graph: Hypergraph, split: IndexSplit, fitted: dict[str, HypergraphClassifier]
) -> None:
    """Twelve labels do not tell a perceptron what the hypergraph tells the teacher, and it the student."""
    found = {name: one.score(graph, index=split.test) for name, one in fitted.items()}
    assert min(found[name] for name in ("hgnn", "hgnnp", "hnhn", "unigcn")) > 0.9, found
    assert min(found["lighthgnn"], found["lighthgnnp"]) > found["mlp"] + 0.05, found
    assert fitted["lighthgnnp"].reliability_ is not None


def test_student_of_a_broken_teacher_learns_nothing(graph: Hypergraph, split: IndexSplit) -> None:
    """What the student knows comes from the teacher: with labels permuted, it is as bad as chance."""
    assert graph.y is not None
    wrong = graph.y.clone()
    wrong[split.train] = (wrong[split.train] + 1) % 3
    wrong[split.valid] = (wrong[split.valid] + 1) % 3
    student = HypergraphClassifier("lighthgnn", **FAST).fit(replace(graph, y=wrong), split=split)
    assert student.score(graph, index=split.test) < 0.3


@pytest.mark.parametrize("name", MODELS)
def test_predictions(name: str, graph: Hypergraph, fitted: dict[str, HypergraphClassifier]) -> None:
    model = fitted[name]
    found = model.predict_proba(graph)
    np.testing.assert_allclose(found.sum(1), 1)
    assert (model.predict(graph) == model.classes_[found.argmax(1)]).all()
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.n_features_in_ == 30
    stages = {"teacher", "student"} if name.startswith("light") else {name}
    assert {row["stage"] for row in model.history_} == set(model.metrics_) == stages
    for stage in stages:
        valid = [row["valid"] for row in model.history_ if row["stage"] == stage]
        assert model.metrics_[stage]["valid"] == max(valid)  # the best weights were kept


def test_predicting_before_fitting(graph: Hypergraph) -> None:
    for method in (HypergraphClassifier().predict, HypergraphClassifier().predict_proba):
        with pytest.raises(NotFittedError):
            method(graph)


@pytest.mark.parametrize("name", ["mlp", "lighthgnn", "lighthgnnp"])
def test_students_need_no_hypergraph(
    name: str, graph: Hypergraph, fitted: dict[str, HypergraphClassifier]
) -> None:
    model = fitted[name]
    assert not model.needs_hypergraph
    whole = model.predict_proba(graph)
    np.testing.assert_allclose(model.predict_proba(graph.x.numpy()), whole, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(graph.x[7:8]), whole[7:8], atol=1e-6)


def test_a_network_needs_one(graph: Hypergraph, fitted: dict[str, HypergraphClassifier]) -> None:
    assert fitted["hgnn"].needs_hypergraph
    with pytest.raises(ConfigError, match="hgnn predicts from a Hypergraph, got ndarray"):
        fitted["hgnn"].predict(graph.x.numpy())


@pytest.mark.parametrize("name", ["hgnn", "lighthgnnp"])
def test_saved_and_loaded(
    name: str, graph: Hypergraph, fitted: dict[str, HypergraphClassifier], tmp_path: Path
) -> None:
    folder = fitted[name].save(tmp_path / "model")
    again = HypergraphClassifier.load(folder)
    assert {file.suffix for file in folder.iterdir()} <= {".safetensors", ".json", ".yaml"}
    np.testing.assert_array_equal(again.predict_proba(graph), fitted[name].predict_proba(graph))
    assert again.get_params() == fitted[name].get_params()
    assert (again.metrics_, again.history_) == (fitted[name].metrics_, fitted[name].history_)
    assert torch.equal(again.reliability(graph).change, fitted[name].reliability(graph).change)
    if name == "lighthgnnp":
        assert again.reliability_ is not None
        assert fitted[name].reliability_ is not None
        assert torch.equal(again.reliability_.probability, fitted[name].reliability_.probability)
    with pytest.raises(RunError, match="exists already"):
        fitted[name].save(folder)


def test_what_is_saved_is_what_was_fitted_and_a_fit_that_fails_leaves_nothing(
    graph: Hypergraph, split: IndexSplit, tmp_path: Path
) -> None:
    model = HypergraphClassifier("hgnn", **{**FAST, "epochs": 3}).fit(graph, split=split)
    before = model.predict_proba(graph)
    model.set_params(model="hnhn", hidden=7).save(tmp_path / "model")
    again = HypergraphClassifier.load(tmp_path / "model")
    assert again.model == "hgnn"
    np.testing.assert_array_equal(again.predict_proba(graph), before)
    with pytest.raises(DataError, match="a classifier needs two"):
        model.fit(graph, np.zeros(graph.num_vertices, int), split=split)
    with pytest.raises(NotFittedError):
        model.predict(graph)


def test_a_student_is_deployed_alone(
    graph: Hypergraph, fitted: dict[str, HypergraphClassifier], tmp_path: Path
) -> None:
    folder = fitted["lighthgnnp"].save(tmp_path / "student", teacher=False)
    assert [file.name for file in folder.glob("*.safetensors")] == ["model.safetensors"]
    again = HypergraphClassifier.load(folder)
    features = graph.x.numpy()
    np.testing.assert_array_equal(again.predict(features), fitted["lighthgnnp"].predict(features))
    with pytest.raises(ConfigError, match="has no teacher to judge"):
        again.reliability(graph)


def test_loading_what_is_damaged(fitted: dict[str, HypergraphClassifier], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no such run folder"):
        HypergraphClassifier.load(tmp_path / "none")
    folder = fitted["lighthgnn"].save(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(RunError, match="does not hold this model's weights"):
        HypergraphClassifier.load(folder)


def test_same_seed_same_model(graph: Hypergraph, split: IndexSplit) -> None:
    quick = {**FAST, "epochs": 5}
    before = torch.random.get_rng_state()
    first, second = (HypergraphClassifier("lighthgnnp", **quick).fit(graph, split=split) for _ in range(2))
    np.testing.assert_array_equal(first.decision_function(graph), second.decision_function(graph))
    assert torch.equal(torch.random.get_rng_state(), before)
    other = clone(first).set_params(random_state=1).fit(graph, split=split)
    assert not np.array_equal(first.decision_function(graph), other.decision_function(graph))


def test_labels_of_test_vertices_are_never_used(graph: Hypergraph, split: IndexSplit) -> None:
    assert graph.y is not None
    hidden = torch.full_like(graph.y, -1)
    hidden[split.train], hidden[split.valid] = graph.y[split.train], graph.y[split.valid]
    quick = {**FAST, "epochs": 5, "label_weight": 0.5}
    seen = HypergraphClassifier("lighthgnnp", **quick).fit(graph, split=split)
    blind = HypergraphClassifier("lighthgnnp", **quick).fit(replace(graph, y=hidden), split=split)
    np.testing.assert_array_equal(seen.decision_function(graph), blind.decision_function(graph))


def test_a_shared_teacher_is_left_as_it_is(
    graph: Hypergraph, split: IndexSplit, fitted: dict[str, HypergraphClassifier], tmp_path: Path
) -> None:
    teacher = fitted["unigcn"]
    before = teacher.decision_function(graph)
    student = HypergraphClassifier("lighthgnn", **FAST).fit(graph, split=split, teacher=teacher)
    np.testing.assert_array_equal(teacher.decision_function(graph), before)
    again = HypergraphClassifier.load(student.save(tmp_path / "student"))
    assert again.teacher_ is not None
    assert torch.equal(again.reliability(graph).entropy, teacher.reliability(graph).entropy)
    with pytest.raises(ConfigError, match="hgnn cannot learn from unigcn"):
        HypergraphClassifier("hgnn", **FAST).fit(graph, split=split, teacher=teacher)
    with pytest.raises(ConfigError, match="lighthgnn cannot learn from mlp"):
        HypergraphClassifier("lighthgnn", **FAST).fit(graph, split=split, teacher=fitted["mlp"])


def test_texts_as_labels_and_no_split(graph: Hypergraph) -> None:
    assert graph.y is not None
    names = np.array(["red", "green", "blue"])[graph.y.numpy()]
    model = HypergraphClassifier("hgnn", **FAST).fit(graph, names)
    assert model.classes_.tolist() == ["blue", "green", "red"]
    assert model.score(graph, names) > 0.9
    assert set(model.predict(graph)) == set(names)


def test_both_protocols(graph: Hypergraph) -> None:
    options = {"train": 4, "valid": 10, **{k: v for k, v in FAST.items() if k != "random_state"}}
    seen = transductive(graph, "hgnnp", seed=1, models=("teacher", "mlp", "lighthgnn"), **options)
    assert seen["lighthgnn"]["accuracy"] > seen["mlp"]["accuracy"]
    assert seen["teacher"]["topology"] < seen["mlp"]["topology"]
    later = production(graph, "hgnnp", seed=1, unseen=0.5, models=("teacher", "lighthgnnp"), **options)
    keys = {f"{a}_{b}" for a in ("transductive", "inductive", "all") for b in ("accuracy", "f1_macro")}
    assert keys < set(later["teacher"])
    assert later["teacher"]["inductive_accuracy"] > 0.8
    assert later["lighthgnnp"]["inductive_accuracy"] > 0.5


def test_picture_of_reliability(
    graph: Hypergraph, fitted: dict[str, HypergraphClassifier], tmp_path: Path
) -> None:
    figure = fitted["lighthgnnp"].plot_reliability(graph, tmp_path / "trust.svg")
    left, right = figure.axes[:2]
    held = int((graph.with_singletons().edge_sizes > 0).sum())
    assert len(left.collections[0].get_offsets()) == held  # type: ignore[arg-type]
    assert sum(bar.get_height() for bar in right.patches) == held  # type: ignore[attr-defined]
    assert (tmp_path / "trust.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_two_vertices_and_no_hyperedge() -> None:
    lone = from_edge_lists(torch.eye(2), [], torch.tensor([0, 1]))
    model = HypergraphClassifier("hgnn", epochs=50, dropout=0.0, random_state=0)
    model.fit(lone, split=IndexSplit.of([0, 1], [], [], 2))
    assert model.predict(lone).tolist() == [0, 1]
    assert model.score(lone) == 1.0


def test_what_cannot_be_fitted(graph: Hypergraph, split: IndexSplit) -> None:
    def fit(graph: Any = graph, split: IndexSplit | None = split, y: Any = None, **options: Any) -> None:
        HypergraphClassifier(**{**FAST, **options}).fit(graph, y, split=split)

    assert graph.y is not None
    with pytest.raises(ConfigError, match="model: there is no 'gcn'; choose one of hgnn"):
        fit(model="gcn")
    with pytest.raises(ConfigError, match="teacher: there is no 'mlp'; choose one of hgnn"):
        fit(teacher="mlp")
    with pytest.raises(ConfigError, match="normalize='l2'"):
        fit(normalize="l2")
    with pytest.raises(ConfigError, match="epochs=0"):
        fit(epochs=0)
    wrong: dict[str, Any] = {"hidden": 0, "layers": "2", "learning_rate": -1.0, "device": "gpu"}
    wrong |= {"dropout": "a", "noise": float("nan"), "temperature": "x", "label_weight": "a"}
    wrong |= {"singletons": "no", "random_state": -1}
    for name, value in wrong.items():
        with pytest.raises(ConfigError, match=f"{name}={value!r}: must be"):
            fit(**{name: value})
    with pytest.raises(ConfigError, match="fit takes a"):
        fit(graph.x)
    with pytest.raises(ConfigError, match=r"split: should be a .*IndexSplit, found tuple"):
        fit(split=([0], [1], [2]))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"training vertices are of class '.*'; a classifier needs two"):
        fit(y=["a"] * graph.num_vertices)
    with pytest.raises(DataError, match="y: row 1 has no label"):
        fit(y=["a", None] * (graph.num_vertices // 2) + ["a"] * (graph.num_vertices % 2))
    with pytest.raises(DataError, match="has no labels"):
        fit(replace(graph, y=None, classes=()))
    with pytest.raises(DataError, match="belongs to another hypergraph"):
        fit(split=IndexSplit.of([0], [1], [2], 3))
    blank = graph.y.clone()
    blank[split.train[0]] = -1
    with pytest.raises(DataError, match=f"vertex {int(split.train[0])} is to train and has no label"):
        fit(replace(graph, y=blank))
    with pytest.raises(DataError, match=r"y has shape \(3,\)"):
        fit(y=[0, 1, 2])
    with pytest.raises(NonFiniteLossError, match="epoch 1"):
        fit(learning_rate=1e30, model="hgnn", weight_decay=1e10)


def test_the_number_minus_one_is_no_label_in_y_as_in_the_hypergraph(
    graph: Hypergraph, split: IndexSplit
) -> None:
    """As for nodes; a text "-1" is a class like others."""
    assert graph.y is not None
    bare = graph.y.clone()
    bare[split.test] = -1
    quick = {**FAST, "epochs": 3}
    given = HypergraphClassifier("mlp", **quick).fit(graph, bare.numpy(), split=split)
    own = HypergraphClassifier("mlp", **quick).fit(replace(graph, y=bare, classes=()), split=split)
    assert given.classes_.tolist() == own.classes_.tolist() == [0, 1, 2]
    assert np.array_equal(given.predict_proba(graph), own.predict_proba(graph))
    assert given.evaluate(graph, bare.numpy()) == own.evaluate(replace(graph, y=bare))
    text = np.where(bare.numpy() < 0, "-1", "x")
    mixed = IndexSplit.of(np.r_[split.train, split.test], [], [], graph.num_vertices)
    named = HypergraphClassifier("mlp", **quick).fit(graph, text, split=mixed)
    assert named.classes_.tolist() == ["-1", "x"]
    with pytest.raises(DataError, match=rf"vertex {int(split.test[0])} is to train and has no label"):
        HypergraphClassifier("mlp", **quick).fit(graph, bare.numpy(), split=mixed)
    bare[5] = -3
    with pytest.raises(
        DataError, match="y: vertex 5 is of class -3; classes are numbered from 0 on, -1 is no"
    ):
        HypergraphClassifier("mlp", **quick).fit(graph, bare.numpy(), split=split)


def test_features_of_another_width(fitted: dict[str, HypergraphClassifier]) -> None:
    with pytest.raises(DataError, match=r"must be \(vertices, 30\)"):
        fitted["lighthgnn"].predict(np.zeros((2, 3)))
    with pytest.raises(DataError, match="features: row 1 is not finite"):
        fitted["lighthgnn"].predict(np.array([[0.0] * 30, [np.nan] * 30]))


def test_the_text_of_a_class_decides_what_is_right(
    graph: Hypergraph, fitted: dict[str, HypergraphClassifier]
) -> None:
    """Classes numbered in another order are the same classes; labels that were not fitted are refused."""
    model, y = fitted["hgnn"], graph.y
    assert y is not None
    turned = replace(graph, y=2 - y, classes=("2", "1", "0"))
    assert model.score(turned) == model.score(graph) == model.score(graph, y.numpy()) > 0.9
    half = np.where(np.arange(len(y)) % 2 == 0, y.numpy().astype(str), "other")
    with pytest.raises(
        DataError, match="vertex 1 is of class 'other', which was not fitted; fitted were 0, 1, 2"
    ):
        model.score(graph, half)
    even = np.arange(0, len(y), 2)
    right = (model.predict(graph)[even].astype(str) == half[even]).mean()
    assert model.score(graph, half, index=even) == right
    assert model.score(graph, np.where(half == "other", None, half)) == right
    named = HypergraphClassifier("mlp", **{**FAST, "epochs": 1}).fit(
        graph, np.array(["c", "a", "b"])[y.numpy()]
    )
    with pytest.raises(
        DataError, match="vertex 0 is of class '0', which was not fitted; fitted were a, b, c"
    ):
        named.score(graph)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([0, 500], "numbers from 0 to 179, found 500"),
        ([-1], "found -1"),
        ([0.5], "index: should be a mask of all 180 vertices, or numbers from 0 to 179"),
        ([True, False], "index: should be a mask of all 180 vertices"),
        ([3], "vertex 3 has no label; leave it out of index"),
        ([], "no vertex is labelled"),
    ],
)
def test_vertices_that_cannot_be_judged(
    index: Any, message: str, graph: Hypergraph, fitted: dict[str, HypergraphClassifier]
) -> None:
    assert graph.y is not None
    bare = graph.y.clone()
    bare[3] = -1
    with pytest.raises(DataError, match=message):
        fitted["hgnn"].evaluate(replace(graph, y=bare), index=index)


def test_labels_of_another_length_are_refused(
    graph: Hypergraph, fitted: dict[str, HypergraphClassifier]
) -> None:
    """One label stood for all vertices."""
    with pytest.raises(DataError, match=r"y has shape \(1,\), must be \(180,\)"):
        fitted["hgnn"].score(graph, ["0"])


def test_a_teacher_of_other_classes_or_features_is_refused(graph: Hypergraph, split: IndexSplit) -> None:
    """Its soft labels stood for other classes."""
    quick = {**FAST, "epochs": 1}
    assert graph.y is not None
    named = np.array(["c", "a", "b"])[graph.y.numpy()]
    other = HypergraphClassifier("hgnn", **quick).fit(graph, named)
    wide = HypergraphClassifier("hgnn", **quick).fit(replace(graph, x=graph.x.repeat(1, 2)))
    student = HypergraphClassifier("lighthgnn", **quick)
    for teacher, message in (
        (other, "teacher: was fitted on the classes a, b, c, here they are 0, 1, 2"),
        (wide, "teacher: was fitted on 60 features, clubs has 30"),
        ("hgnn", "teacher: must be a fitted HypergraphClassifier, got str"),
    ):
        with pytest.raises(ConfigError, match=message):
            student.fit(graph, split=split, teacher=teacher)  # type: ignore[arg-type]


def test_features_of_any_layout_and_of_wrong_kinds(
    graph: Hypergraph, fitted: dict[str, HypergraphClassifier]
) -> None:
    x, model = graph.x.numpy(), fitted["mlp"]
    whole = model.predict_proba(x)
    np.testing.assert_array_equal(model.predict_proba(x[::-1]), whole[::-1])
    frame = pytest.importorskip("polars").DataFrame(x)
    np.testing.assert_array_equal(model.predict_proba(frame), whole)
    for wrong in (None, "abc", x.astype(complex), x.astype(str), graph.x.to_sparse()):
        with pytest.raises(DataError, match="features: found"):
            model.predict(wrong)


def test_arguments_of_numpy_are_saved_as_numbers(graph: Hypergraph, tmp_path: Path) -> None:
    """As `GridSearchCV` sets them; they were written as texts, and the folder could not be read."""
    options: dict[str, Any] = {"hidden": np.int64(8), "dropout": np.float32(0.5), "epochs": np.int64(1)}
    model = HypergraphClassifier("hgnn", **{**FAST, **options}).fit(graph)
    again = HypergraphClassifier.load(model.save(tmp_path / "model"))
    assert (again.hidden, again.dropout) == (8, 0.5)
    np.testing.assert_array_equal(again.predict_proba(graph), model.predict_proba(graph))


def test_sparse_features_are_refused_by_their_name() -> None:
    """They were said to be of type object."""
    model = HypergraphClassifier("mlp", epochs=1, random_state=0).fit(clubs(10))
    with pytest.raises(
        DataError, match=r"features: found a sparse csr_array; give dense ones, by \.toarray\(\)"
    ):
        model.predict(csr_array(np.eye(30)))
