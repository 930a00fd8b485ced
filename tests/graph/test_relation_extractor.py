"""`RelationExtractor`: fitting, saving, baselines, and what it refuses."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from relation_tools import batch_of, model_for, some_relations, tree_task
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import f1_score, precision_recall_fscore_support
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict, cross_val_score

from graphrec.errors import ConfigError, DataError, RunError
from graphrec.graph.relations import RelationExtractor, relation_metrics
from graphrec.graph.relations.inputs import class_weights, coded_as
from graphrec.graph.relations.pictures import attention_figure, attention_weights
from graphrec.graph.relations.tfidf import marked_texts
from graphrec.pipelines.index_splits import IndexSplit
from graphrec.pipelines.recipes import read_recipe
from graphrec.pipelines.relations import RelationSet, read_relations
from graphrec.pipelines.relations.builder import Builder
from graphrec.running import check_recipe

SMALL = {"hidden": 8, "word_dim": 6, "pos_dim": 2, "mark_dim": 3, "place_dim": 2, "heads": 2}


def extractor(**options: Any) -> RelationExtractor:
    options = {
        "model_options": None if options.get("model") == "tfidf" else SMALL,
        "epochs": 2,
        "batch_size": 8,
        "random_state": 3,
        "min_count": 1,
        **options,
    }
    return RelationExtractor(**options)


@pytest.fixture(scope="module")
def relations() -> RelationSet:
    return tree_task(40, 0)


@pytest.fixture(scope="module")
def fitted(relations: RelationSet) -> RelationExtractor:
    return extractor().fit(relations)


def test_predictions_follow_the_instances(relations: RelationSet, fitted: RelationExtractor) -> None:
    p = fitted.predict_proba(relations)
    assert p.shape == (40, 2)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    some = [17, 3, 3, 30]
    np.testing.assert_allclose(fitted.predict_proba(relations, index=some), p[some], rtol=1e-4, atol=1e-6)
    assert fitted.predict(relations).tolist() == [fitted.classes_[c] for c in p.argmax(1)]
    right = (p.argmax(1) == relations.y.numpy()).mean()
    assert fitted.score(relations) == pytest.approx(right)
    assert fitted.evaluate(relations)["accuracy"] == pytest.approx(right)
    assert fitted.predict_proba(relations, index=[]).shape == (0, 2)
    assert set(fitted.metrics_) == {"valid"}
    assert len(fitted.history_) == 2


def test_a_seed_repeats_a_fit(relations: RelationSet, fitted: RelationExtractor) -> None:
    again = clone(fitted).fit(relations)
    np.testing.assert_array_equal(again.predict_proba(relations), fitted.predict_proba(relations))
    other = clone(fitted).set_params(random_state=4).fit(relations)
    assert not np.allclose(other.predict_proba(relations), fitted.predict_proba(relations))


@pytest.mark.parametrize("options", [{}, {"model": "tfidf", "model_options": None}, {"model": "bilstm"}])
def test_saved_and_read_again(relations: RelationSet, tmp_path: Path, options: dict[str, Any]) -> None:
    model = extractor(**options).fit(relations)
    folder = model.save(tmp_path / "model")
    assert {path.suffix for path in folder.iterdir()} <= {".safetensors", ".json", ".yaml", ".csv"}
    again = RelationExtractor.load(folder)
    np.testing.assert_array_equal(again.predict_proba(relations), model.predict_proba(relations))
    assert again.metrics_ == model.metrics_
    assert again.get_params() == model.get_params()
    with pytest.raises(RunError, match="exists"):
        model.save(tmp_path / "model")


def test_a_damaged_folder_is_named(fitted: RelationExtractor, tmp_path: Path) -> None:
    folder = fitted.save(tmp_path / "model")
    info = json.loads((folder / "run.json").read_text())
    del info["facts"]["words"]
    (folder / "run.json").write_text(json.dumps(info))
    with pytest.raises(RunError, match="model: is not complete"):
        RelationExtractor.load(folder)


def test_unseen_words_and_labels_of_dependencies(fitted: RelationExtractor) -> None:
    builder = Builder("new", 2)
    text = builder.add_text(["never", "met", "W3"], ["X"] * 3, ["new"] * 3, [1, -1, 1])
    builder.add_instance(text, [(0, 0, 1), (1, 2, 3)], "yes")
    new = builder.finish(["None", "yes"])
    assert np.isfinite(fitted.predict_proba(new)).all()
    coded = coded_as(new, fitted.facts_, lower=True)
    assert [coded.words[c] for c in coded.word.tolist()[:2]] == ["never", "met"]
    assert min(coded.word.tolist()[:2]) >= len(fitted.facts_["words"])
    assert coded.words[int(coded.word[2])] == "w3"


def test_vocabularies_come_from_training_alone(relations: RelationSet) -> None:
    split = IndexSplit.of(range(5), range(5, 20), range(20, 40), 40)
    model = extractor().fit(relations, split=split)
    words = {w for i in range(5) for w in relations.tokens(i)}
    assert set(model.facts_["words"]) == {"<pad>", "<unk>"} | words
    assert set(model.metrics_) == {"valid", "test"}


def test_edges_are_chosen_by_the_texts(relations: RelationSet) -> None:
    assert extractor(epochs=1).fit(relations).facts_["edges"] == "tree"
    builder = Builder("plain", 2)
    for i in range(8):
        builder.add_instance(builder.add_text(["a", "b", str(i)]), [(0, 0, 1), (1, 1, 2)], "ab"[i % 2])
    plain = builder.finish()
    assert extractor(epochs=1).fit(plain).facts_["edges"] == "window"
    assert extractor(epochs=1, edges="none").fit(plain).facts_["edges"] == "none"
    with pytest.raises(ConfigError, match="edges='dep': must be auto, tree"):
        extractor(edges="dep").fit(plain)


def test_best_weights_are_kept(relations: RelationSet) -> None:
    model = extractor(epochs=30, patience=2, learning_rate=0.05, monitor="logloss").fit(relations)
    values = [row["valid_logloss"] for row in model.history_]
    assert len(values) < 30
    assert model.metrics_["valid"]["logloss"] == pytest.approx(min(values), rel=1e-4)


def test_other_labels(relations: RelationSet) -> None:
    y = np.where(np.arange(40) % 2, "odd", "even")
    model = extractor().fit(relations, y)
    assert model.classes_.tolist() == ["even", "odd"]
    assert 0 <= model.score(relations, y) <= 1
    with pytest.raises(DataError, match="is of class 'None', which was not fitted; fitted were even, odd"):
        model.score(relations)


def test_weights_of_classes(relations: RelationSet) -> None:
    classes = np.array(["None", "yes"])
    y = np.array([0, 0, 0, 1])
    assert class_weights("balanced", y, classes) == {0: pytest.approx(4 / 6), 1: pytest.approx(2.0)}
    assert class_weights({"yes": 3}, y, classes) == {0: 1.0, 1: 3.0}
    split = IndexSplit.of(range(40), [], [], 40)
    model = extractor(class_weight={"yes": 50.0}, epochs=4, learning_rate=0.02).fit(relations, split=split)
    assert (model.predict(relations) == "yes").mean() > 0.9
    with pytest.raises(ConfigError, match="there is no class 'no'; classes are None, yes"):
        extractor(class_weight={"no": 1.0}).fit(relations)
    with pytest.raises(ConfigError, match="class_weight='even': must be 'balanced'"):
        extractor(class_weight="even").fit(relations)


def test_vectors_from_a_file(relations: RelationSet, tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("w1 1 2 3 4 5 6\nw2 0 0 0 0 0 9\nelse 1 1 1 1 1 1\n")
    model = extractor(vectors=str(path), learning_rate=1e-9, epochs=1).fit(relations)
    row = model.module_.embed.table.word.weight[model.facts_["words"].index("w1")]
    torch.testing.assert_close(row, torch.tensor([1.0, 2, 3, 4, 5, 6]), rtol=1e-5, atol=1e-5)
    path.write_text("w1 1 2 3\n")
    with pytest.raises(ConfigError, match="vectors of width 3, the model's word_dim is 6"):
        extractor(vectors=str(path)).fit(relations)


def test_tfidf_is_scikit_learns(relations: RelationSet) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    split = IndexSplit.of(range(30), [], range(30, 40), 40)
    model = extractor(model="tfidf", min_count=2).fit(relations, split=split)
    texts = marked_texts(relations, torch.arange(40), lower=True)
    assert texts[0].count("[0 ") == texts[0].count(" 0]") == texts[0].count("[1 ") == 1
    peer = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", min_df=2, sublinear_tf=True),
        LogisticRegression(C=10, max_iter=1000),
    ).fit(texts[:30], relations.y[:30])
    np.testing.assert_allclose(
        model.predict_proba(relations), peer.predict_proba(texts), rtol=1e-4, atol=1e-6
    )
    with pytest.raises(ConfigError, match="has no attention"):
        model.plot_attention(relations, 0)


def test_tfidf_of_three_classes_of_which_one_never_trains(relations: RelationSet) -> None:
    y = np.array(["a", "b", "c"])[np.r_[np.arange(30) % 2, np.full(10, 2)]]
    split = IndexSplit.of(range(30), [], range(30, 40), 40)
    model = extractor(model="tfidf").fit(relations, y, split=split)
    assert set(model.predict(relations)) <= {"a", "b"}


def test_a_blend_averages_what_both_say(relations: RelationSet, tmp_path: Path) -> None:
    split = IndexSplit.of(range(20), range(20, 32), range(32, 40), 40)
    parts = [extractor(), extractor(model="tfidf"), extractor(blend=True)]
    network, floor, both = (one.fit(relations, split=split).predict_proba(relations) for one in parts)
    share = float(parts[2].module_.share)  # type: ignore[arg-type]
    np.testing.assert_allclose(both, share * network + (1 - share) * floor, rtol=1e-4, atol=1e-6)
    y = relations.y[20:32].numpy()

    def loss(p: np.ndarray) -> float:
        return -np.log(p[20:32][np.arange(12), y]).mean()

    assert loss(both) <= min(loss(network), loss(floor)) + 1e-6
    folder = parts[2].save(tmp_path / "blend")
    np.testing.assert_array_equal(RelationExtractor.load(folder).predict_proba(relations), both)
    assert len(parts[2].plot_attention(relations, 0).axes) == 2
    alone = extractor(blend=True).fit(relations, split=IndexSplit.of(range(40), [], [], 40))
    assert float(alone.module_.share) == 0.5  # type: ignore[arg-type]


def test_metrics_of_relations() -> None:
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 3, 50), rng.dirichlet(np.ones(3), 50)
    found = relation_metrics(y, p, negative=1)
    wanted = precision_recall_fscore_support(y, p.argmax(1), labels=[0, 2], average="micro")
    assert [found[k] for k in ("precision", "recall", "f1")] == pytest.approx(list(wanted[:3]))
    assert found["f1_macro"] == pytest.approx(f1_score(y, p.argmax(1), average="macro"))
    true = int((y != 1).sum())
    missed = relation_metrics(y, p, negative=1, unreachable=true)
    assert missed["recall"] == pytest.approx(found["recall"] / 2)
    assert missed["precision"] == found["precision"]
    assert "f1" not in relation_metrics(y, p)


def test_a_file_in_place_of_a_set(tmp_path: Path) -> None:
    path = tmp_path / "part.jsonl"
    line = '{{"text": "<< a{0} >> blocks [[ b ]]", "label": "{1}"}}\n'
    path.write_text("".join(line.format(i, "XY"[i % 2]) for i in range(20)))
    model = extractor(epochs=1).fit(path)
    assert len(model.predict(str(path))) == len(read_relations(path)) == 20
    with path.open("a") as file:
        file.write('{"text": "<< a >> and b", "label": "X"}\n')
    with pytest.raises(DataError, match=r"part.jsonl: line 21: entity 2 is not marked"):
        model.predict(path)


def test_what_is_refused(relations: RelationSet, fitted: RelationExtractor, tmp_path: Path) -> None:
    one = IndexSplit.of((relations.y == 1).nonzero().flatten(), [], [], 40)
    with pytest.raises(DataError, match="training instances are of class 'yes'; a classifier needs two"):
        extractor().fit(relations, split=one)
    with pytest.raises(ConfigError, match="splits 7 instances, there are 40"):
        extractor().fit(relations, split=IndexSplit.of([0, 1], [2], [3], 7))
    with pytest.raises(ConfigError, match="there is no 'bioe'; did you mean bioie"):
        extractor(model="bioe").fit(relations)
    with pytest.raises(ConfigError, match="model='gcn': is for another task"):
        extractor(model="gcn").fit(relations)
    with pytest.raises(ConfigError, match="width: bioie has no such option"):
        extractor(model_options={"width": 3}).fit(relations)
    with pytest.raises(DataError, match="must be a RelationSet or the path of a file, got list"):
        extractor().fit([1, 2])  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"y has shape \(3,\), must be \(40,\)"):
        extractor().fit(relations, [1, 2, 3])
    with pytest.raises(DataError, match="numbers from 0 to 39, found 40"):
        fitted.predict(relations, index=[40])
    builder = Builder("three", 3)
    builder.add_instance(builder.add_text(["a"]), [(0, 0, 1), (1, 0, 1), (2, 0, 1)], "yes")
    with pytest.raises(DataError, match="three: has 3 entities, fitted were 2"):
        fitted.predict(builder.finish())
    with pytest.raises(NotFittedError):
        extractor().predict(relations)
    with pytest.raises(RunError):
        RelationExtractor.load(tmp_path)


def test_picture_of_a_long_text() -> None:
    """Entities' tokens and the most attended ones, in the text's order, with the arcs among them."""
    builder = Builder("long", 2)
    words = [f"w{i}" for i in range(90)]
    text = builder.add_text(words, ["N"] * 90, ["d"] * 90, [-1, *range(89)])
    builder.add_instance(text, [(0, 5, 6), (1, 85, 86)], "yes")
    relations = builder.finish(["None", "yes"])
    model, batch = model_for(relations), batch_of(relations)
    _, among = attention_weights(model, batch)
    assert among is not None
    rest = [i for i in among.sum(0).argsort(descending=True).tolist() if i not in (5, 85)][:58]
    shown = sorted([5, 85, *rest])
    arcs, matrix = attention_figure(model, batch, relations, 0).axes
    assert [label.get_text() for label in arcs.get_yticklabels()] == [words[i] for i in shown]
    assert len(arcs.lines) == sum(b - a == 1 for a, b in itertools.pairwise(shown))
    np.testing.assert_array_equal(np.asarray(matrix.images[0].get_array()), among[shown][:, shown])
    assert matrix.get_title() == "attention among 60 of 90 tokens\n(rows look at columns)"


def test_picture_of_attention(tmp_path: Path) -> None:
    relations = some_relations()
    split = IndexSplit.of(range(6), [], [], 6)
    model = extractor(epochs=1).fit(relations, split=split)
    figure = model.plot_attention(relations, 1)
    arcs, matrix = figure.axes
    assert len(arcs.lines) == 3  # the tree of five tokens, one of them detached
    assert [label.get_text() for label in arcs.get_yticklabels()] == relations.tokens(1)
    weights = np.asarray(matrix.images[0].get_array())
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    figure.savefig(tmp_path / "attention.png")
    lone = extractor(epochs=1, model="bilstm").fit(relations, split=split)
    with pytest.raises(ConfigError, match="has no attention to draw"):
        lone.plot_attention(relations, 1)
    only = extractor(epochs=1, model_options={**SMALL, "guided": 0}).fit(relations, split=split)
    assert len(only.plot_attention(relations, 0).axes) == 1


def test_a_mask_names_instances(relations: RelationSet, fitted: RelationExtractor) -> None:
    """It was read as the numbers 0 and 1: other instances, as many as the mask is long."""
    mask = torch.arange(40) % 3 == 1
    some = mask.nonzero().flatten()
    np.testing.assert_array_equal(
        fitted.predict_proba(relations, index=mask), fitted.predict_proba(relations, index=some)
    )
    assert fitted.evaluate(relations, index=mask.numpy()) == fitted.evaluate(relations, index=some)
    for wrong in ([0.5], [True, False], "a", slice(3)):
        with pytest.raises(DataError, match="trees: index: should be a mask of all 40 instances, or numbers"):
            fitted.predict(relations, index=wrong)


@pytest.mark.parametrize("model", ["bioie", "aggcn", "cgcn", "bilstm"])
def test_a_text_without_tokens(model: str, relations: RelationSet) -> None:
    builder = Builder("blank", 2)
    builder.add_instance(builder.add_text([]), [], "yes")
    blank = builder.finish(["None", "yes"])
    options = SMALL if model == "bioie" else {"hidden": 8}
    found = extractor(model=model, model_options=options, epochs=1).fit(relations)
    np.testing.assert_allclose(found.predict_proba(blank).sum(1), 1, rtol=1e-5)
    if found.has_attention:
        with pytest.raises(DataError, match="blank: the text of instance 0 has no tokens to draw"):
            found.plot_attention(blank, 0)


def test_words_without_an_end_or_a_glyph_are_drawn(fitted: RelationExtractor, tmp_path: Path) -> None:
    builder = Builder("odd", 2)
    builder.add_instance(builder.add_text(["\x00", "w" * 10_000, "$x$"]), [(0, 0, 1), (1, 2, 3)], "yes")
    figure = fitted.plot_attention(builder.finish(["None", "yes"]), 0)
    words = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert words == ["\N{REPLACEMENT CHARACTER}", "w" * 15 + "…" + "w" * 8, r"\$x\$"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(tmp_path / "odd.png")


def test_long_words_leave_room_for_the_others(fitted: RelationExtractor) -> None:
    builder = Builder("long", 2)
    text = builder.add_text(["w" * 200, *(f"word{i}" for i in range(12))])
    builder.add_instance(text, [(0, 0, 1), (1, 2, 3)], "yes")
    figure = fitted.plot_attention(builder.finish(["None", "yes"]), 0)
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [one.get_window_extent() for one in axes.get_yticklabels()]
        assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
        assert axes.title.get_window_extent().x1 <= figure.bbox.x1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_count": 0}, "min_count=0: must be a whole number from 1"),
        ({"lower": "no"}, "lower='no': must be true or false"),
        ({"blend": "no"}, "blend='no': must be true or false"),
        ({"vectors": 3}, "vectors=3: must be 'texts', the path of a file, or None"),
        ({"class_weight": {"yes": -1}}, r"class_weight\['yes'\]=-1: must be a finite number from 0"),
        ({"model": 3}, "model: should be a name, got 3"),
        ({"model_options": {"hidden": "a"}}, "hidden='a': must be a whole number"),
        ({"model_options": {"dropout": 2}}, "dropout=2: must be a finite number from 0 and below 1"),
    ],
)
def test_arguments_of_wrong_kinds(change: dict[str, Any], message: str, relations: RelationSet) -> None:
    with pytest.raises(ConfigError, match=message):
        extractor(**change).fit(relations)


def test_unreachable_relations_are_counted(relations: RelationSet, fitted: RelationExtractor) -> None:
    """Less than none made a recall above 1."""
    for wrong in (-5, "a", 0.5):
        with pytest.raises(ConfigError, match=f"unreachable={wrong!r}: must be a whole number from 0"):
            fitted.evaluate(relations, unreachable=wrong)  # type: ignore[arg-type]


def test_sizes_of_numpy_and_a_generator_of_seeds(relations: RelationSet, tmp_path: Path) -> None:
    """As `GridSearchCV` gives them."""
    model = extractor(batch_size=np.int64(8), random_state=np.random.RandomState(0), epochs=1).fit(relations)
    again = RelationExtractor.load(model.save(tmp_path / "model"))
    assert (again.batch_size, again.random_state) == (8, model.facts_["seed"])
    np.testing.assert_array_equal(again.fit(relations).predict(relations), model.predict(relations))
    (tmp_path / "model" / "history.csv").write_text("epoch,loss\n1,no number\n")
    with pytest.raises(RunError, match=r"history\.csv: is damaged"):
        RelationExtractor.load(tmp_path / "model")


def test_cross_validation_takes_a_set(relations: RelationSet) -> None:
    """Folds are sets; labels may be texts or numbers, and predictions are of their kind."""
    texts = np.asarray(relations.classes)[relations.y.numpy()]
    found = cross_val_score(extractor(epochs=1), relations, texts, cv=2)
    numbers = cross_val_score(extractor(epochs=1), relations, relations.y, cv=2, scoring="accuracy")
    np.testing.assert_array_equal(found, numbers)  # by a scorer of scikit-learn's, on whole numbers
    guess = cross_val_predict(extractor(epochs=1), relations, texts, cv=2)
    assert set(guess) <= {"None", "yes"}
    search = GridSearchCV(extractor(epochs=1), {"learning_rate": [1e-3, 1e-2]}, cv=GroupKFold(2))
    search.fit(relations, texts, groups=relations.text)
    assert clone(search.best_estimator_).learning_rate == search.best_params_["learning_rate"]
    np.testing.assert_array_equal(relations[[3, 1]].y, relations.y[[3, 1]])
    assert [relations[5].tokens(0), len(relations[:7])] == [relations.tokens(5), 7]


def test_folds_that_share_texts_are_refused() -> None:
    some = some_relations()
    with pytest.raises(
        DataError, match=r"some: instances of text 1 fall on both sides.*groups=relations.text"
    ):
        cross_val_score(extractor(), some, cv=3)
    part = some.select([2, 1])
    assert [part.tokens(0), part.tokens(1)] == [some.tokens(2), some.tokens(1)]
    assert bool((part.batch([0, 1]).entity == some.batch([2, 1]).entity).all())


def test_settings_that_tfidf_has_no_use_for_are_refused(relations: RelationSet) -> None:
    with pytest.raises(ConfigError, match="model_options: model='tfidf' has none, found hidden; leave them"):
        RelationExtractor("tfidf", model_options={"hidden": 8}).fit(relations)
    with pytest.raises(ConfigError, match="blend=True: averages a network with tfidf"):
        RelationExtractor("tfidf", blend=True).fit(relations)
    recipe = read_recipe(
        "bioie-cdr", {"model.options": {"hidden": 8}, "variants.tfidf": {"model.name": "tfidf"}}
    )
    with pytest.raises(ConfigError, match=r"variants\.tfidf: model: model_options: model='tfidf' has none"):
        check_recipe(recipe)
