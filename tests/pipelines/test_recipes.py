"""Recipes from YAML: what is right comes back whole, what is wrong is named with its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.graphs import motif_graphs
from graphrec.pipelines.index_splits import stratified_folds, with_validation
from graphrec.pipelines.recipes import SOURCES, SPLITS, DataFolder, list_recipes, read_recipe
from graphrec.pipelines.recipes.vocabulary import KINDS

PLAIN: dict[str, Any] = {
    "title": "A trial",
    "task": "graph_classification",
    "data": {"source": "motifs", "graphs": 40},
    "split": {"kind": "stratified", "folds": 2},
    "model": {"name": "gin", "options": {"hidden": 8}},
    "training": {"epochs": 2},
    "variants": {"gin": {}, "narrow": {"model.options.hidden": 4}},
}


def test_every_shipped_recipe_comes_back_whole_from_its_resolved_form() -> None:
    listed = list_recipes()
    assert {one.name for one in listed} >= {"motifs", "karate", "histograph-mutag", "lighthgnn-ca-cora"}
    for one in listed:
        recipe = read_recipe(one.name)
        again = read_recipe(yaml.safe_load(yaml.safe_dump(recipe.to_dict())))
        assert again == recipe, one.name
        assert recipe.data["origin"] or recipe.data["source"] in ("motifs", "drawn_shapes"), (
            f"{one.name}: say where it can be had"
        )


def test_defaults_are_written_out() -> None:
    recipe = read_recipe(PLAIN)
    assert recipe.data == {
        "source": "motifs",
        "graphs": 40,
        "nodes": 20,
        "classes": 2,
        "seed": 0,
        "origin": "",
    }
    assert recipe.split == {"kind": "stratified", "folds": 2, "valid": 0.1, "draw": 0}
    assert recipe.repeat.seed_list == [0]


def test_changes_reach_any_depth_and_variants_change_them_again() -> None:
    recipe = read_recipe(
        PLAIN, {"model.options.layers": 3, "repeat.seeds": [4, 7], "training.patience": None}
    )
    assert recipe.model.options == {"hidden": 8, "layers": 3}
    assert recipe.repeat.seed_list == [4, 7]
    assert recipe.training == {"epochs": 2, "patience": None}
    assert recipe.variant("narrow").model.options == {"hidden": 4, "layers": 3}
    assert recipe.variant("narrow").variants == {}


def test_a_grid_becomes_variants() -> None:
    grid = {"model.name": ["gcn", "gin"], "model.options.readout": ["sum", "max"]}
    recipe = read_recipe({**PLAIN, "grid": grid, "chosen": ["gin", "gcn-max"]})
    assert list(recipe.variants) == ["gin", "narrow", "gcn-sum", "gcn-max", "gin-sum", "gin-max"]
    assert recipe.variant("gcn-max").model.name == "gcn"
    assert recipe.variant("gcn-max").model.options == {"hidden": 8, "readout": "max"}
    assert recipe.choose([]) == ["gin", "gcn-max"]
    assert recipe.choose(["all"]) == list(recipe.variants)
    assert recipe.grid == {}


def test_a_recipe_extends_another(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(PLAIN))
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\ntitle: Mine\nmodel: {options: {layers: 2}}\n")
    recipe = read_recipe(tmp_path / "mine.yaml")
    assert recipe.title == "Mine"
    assert recipe.model.options == {"hidden": 8, "layers": 2}
    (tmp_path / "base.yaml").write_text("extends: mine.yaml\n")
    with pytest.raises(ConfigError, match=r"extends: leads back to the same recipe"):
        read_recipe(tmp_path / "mine.yaml")


WRONG = {
    "titel": ("A", r"titel: there is no such key; did you mean title\?"),
    "title": (None, r"title: should be a valid string, found None"),
    "model": (
        {"nam": "gin"},
        r"model.name: is missing; model.nam: there is no such key; did you mean name\?",
    ),
    "model.options": ([1], r"model.options: should be a valid dictionary, found \[1\]"),
    "data": ({"source": "motif"}, r"data.source: there is no 'motif'; did you mean motifs\? \(.*tu_text"),
    "data.graph": (3, r"data.graph: there is no such key; did you mean graphs\?"),
    "data.graphs": ("many", r"data.graphs: should be a valid integer.*found 'many'"),
    "data.classes": (7, r"data.classes: should be 2, 3 or 4, found 7"),
    "data.origin": (7, r"data.origin: should be a text, found 7"),
    "split": ({}, r"split.kind: is missing; one of fold_files, stratified"),
    "split.kind": ("rows", r"split.kind: 'rows' does not divide what 'motifs' gives; one of fold_files"),
    "split.fold": (3, r"split.fold: there is no such key; did you mean folds\?"),
    "repeat.seeds": (0, r"repeat.seeds: must be a number from 1 up, or a list .*found 0"),
    "repeat.seed": (1, r"repeat.seed: there is no such key; did you mean seeds\?"),
    "save": ("last", r"save: should be 'first', 'all' or 'none', found 'last'"),
    "variants": ({"a b": {}}, r"variants.a b: a name has letters"),
    "variants.narrow": ({"data.graphs": 3}, r"variants.narrow: changes 'data.graphs'; a variant may change"),
    "variants.gin": (
        {"split.fold": 2},
        r"variants.gin: split.fold: there is no such key; did you mean folds",
    ),
    "chosen": (["narow"], r"variants: there is no 'narow'; did you mean narrow\?"),
    "published": ({"gni": 0.9}, r"published.gni: there is no such variant; did you mean gin\?"),
    "title.short": ("A", r"title.short: title is 'A trial', which has no keys below it"),
}


@pytest.mark.parametrize("key", WRONG)
def test_what_is_wrong_is_named_with_its_key(key: str) -> None:
    value, message = WRONG[key]
    with pytest.raises(ConfigError, match=message) as caught:
        read_recipe(PLAIN, {key: value})
    assert "\n" not in str(caught.value)


def test_a_key_said_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("title: a\nvariants:\n  a: &a {model.name: gin}\n  b: *a\n  a: {model.name: gcn}\n")
    with pytest.raises(ConfigError, match=r"mine.yaml: lines 3 and 5 both say 'a'; keep one"):
        read_recipe(file)
    file.write_text("title: &t [*t]\n")
    with pytest.raises(ConfigError, match="title: should be a valid string"):
        read_recipe(file)


def test_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**PLAIN, "model": {"name": 3}}))
    with pytest.raises(ConfigError, match=r"mine.yaml: model.name: should be a valid string, found 3"):
        read_recipe(file)
    file.write_text("title: [")
    with pytest.raises(ConfigError, match=r"mine.yaml: cannot be read as YAML"):
        read_recipe(file)
    file.write_text("- title")
    with pytest.raises(ConfigError, match=r"mine.yaml: must be a mapping with title, task"):
        read_recipe(file)
    with pytest.raises(ConfigError, match=r"other.yaml: there is no such recipe file"):
        read_recipe(tmp_path / "other.yaml")


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no 'histogram-mutag'; did you mean histograph-mutag"):
        read_recipe("histogram-mutag")


def test_a_missing_file_is_named_with_its_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read_recipe("histograph-mutag")
    folder = DataFolder.find(tmp_path, recipe.data["origin"])
    source = {key: value for key, value in recipe.data.items() if key != "origin"}
    message = (
        rf"data.path: {tmp_path}/tu/MUTAG/MUTAG.txt is missing \(below --data\); it can be had from https"
    )
    with pytest.raises(DataError, match=message):
        SOURCES.call(source, folder)
    monkeypatch.setenv("GRAPHREC_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"below GRAPHREC_DATA"):
        DataFolder.find().file("tu")
    monkeypatch.setenv("GRAPHREC_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"GRAPHREC_DATA: .*nowhere is not a folder"):
        DataFolder.find()


def test_an_option_may_not_hide_the_name() -> None:
    for words in (SOURCES, SPLITS):
        for name, entry in words.entries.items():
            assert words.key not in entry.options.model_fields, name

    def late(folder: DataFolder, *, source: str = "x") -> None:
        """Nothing."""

    with pytest.raises(ValueError, match="late: an option may not be called 'source'"):
        SOURCES.register("graph")(late)
    assert "late" not in SOURCES.entries


def test_sources_and_splits_cover_the_kinds() -> None:
    given = {kind for entry in SOURCES.entries.values() for kind in entry.kinds}
    assert given <= set(KINDS)
    for kind in given:
        assert SPLITS.of(kind), f"nothing divides {kind}"
    assert all(entry.about for entry in [*SOURCES.entries.values(), *SPLITS.entries.values()])


@pytest.fixture
def tables(tmp_path: Path) -> DataFolder:
    """Twelve graphs of three nodes, which are also one graph and a hypergraph, as tables."""
    import polars as pl

    nodes = pl.DataFrame(
        {"graph": [i // 3 for i in range(36)], "node": range(36), "x": [i % 5 + 0.5 for i in range(36)]}
    )
    edges = nodes.filter(pl.col("node") % 3 > 0).select("graph", source="node", target=pl.col("node") - 1)
    labels = pl.DataFrame({"graph": range(12), "label": [i % 2 for i in range(12)]})
    nodes.write_parquet(tmp_path / "nodes.parquet")
    edges.write_parquet(tmp_path / "edges.parquet")
    labels.write_parquet(tmp_path / "labels.parquet")
    people = nodes.select(vertex="node", x="x", label=pl.col("graph") % 2)
    people.write_parquet(tmp_path / "people.parquet")
    people.rename({"vertex": "node"}).write_parquet(tmp_path / "people_nodes.parquet")
    nodes.select(edge="graph", vertex="node").write_parquet(tmp_path / "members.parquet")
    edges.drop("graph").write_parquet(tmp_path / "links.parquet")
    return DataFolder(tmp_path)


READ: dict[str, tuple[dict[str, Any], str]] = {
    "graph_tables": (
        {"nodes": "nodes.parquet", "edges": "edges.parquet", "labels": "labels.parquet", "undirected": True},
        "12 graphs, 36 nodes, 48 edges",
    ),
    "node_tables": ({"nodes": "people_nodes.parquet", "edges": "links.parquet"}, "x=[36, 1]"),
    "incidence_tables": ({"incidence": "members.parquet", "vertices": "people.parquet"}, "12 hyperedges"),
    "karate": ({}, "x=[34, 34]"),
    "pyg_graph": ({"dataset": "KarateClub"}, "x=[34, 34]"),
    "pyg_graphs": ({"dataset": "FakeDataset", "arguments": {"num_graphs": 7, "task": "graph"}}, "7 graphs"),
    "table": ({"path": "people.parquet", "label": "label", "ignore": ["x"]}, "'ignore': ['x']"),
}


@pytest.mark.parametrize("source", READ)
def test_sources_read_what_they_say(source: str, tables: DataFolder) -> None:
    options, shown = READ[source]
    found = SOURCES.call({"source": source, **options}, tables)
    assert shown in str(found)


def test_pyg_is_asked_only_for_what_it_has(tables: DataFolder) -> None:
    with pytest.raises(ConfigError, match=r"PyG has no 'KarateKlub'; did you mean KarateClub"):
        SOURCES.call({"source": "pyg_graph", "dataset": "KarateKlub"}, tables)
    several = {"source": "pyg_graph", "dataset": "FakeDataset", "arguments": {"num_graphs": 2}}
    with pytest.raises(ConfigError, match=r"holds 2 graphs; take source: pyg_graphs"):
        SOURCES.call(several, tables)
    with pytest.raises(ConfigError, match=r"data.arguments: PyG's KarateClub refuses"):
        SOURCES.call({"source": "pyg_graph", "dataset": "KarateClub", "arguments": {"a": 1}}, tables)


@pytest.mark.data
def test_fixed_folds_and_masks_are_those_of_the_files() -> None:
    folder = DataFolder.find()
    recipe = read_recipe("histograph-mutag")
    graphs = SOURCES.call({k: v for k, v in recipe.data.items() if k != "origin"}, folder)
    folds = SPLITS.call(recipe.split, graphs, 0, folder)
    assert len(folds) == 10
    assert all(len(fold.valid) > 10 for fold in folds)
    npz = SOURCES.call({"source": "masked_npz", "path": "heterophilous/texas.npz"}, folder)
    assert len(SPLITS.call({"kind": "given"}, npz, 0, folder)) == 10
    cora = SOURCES.call({"source": "planetoid_hypergraph", "path": "planetoid", "name": "cora"}, folder)
    [split] = SPLITS.call({"kind": "transductive"}, cora, 0, folder)
    assert (len(split.train), len(split.valid)) == (140, 700)


def test_validation_is_taken_from_training_alone() -> None:
    graphs = motif_graphs(60, classes=3, seed=1)
    fold = stratified_folds(graphs.y, 3)[0]
    split = with_validation(fold, graphs.y, 0.25)
    assert split.test.tolist() == fold.test.tolist()
    assert sorted([*split.train.tolist(), *split.valid.tolist()]) == sorted(fold.train.tolist())
    assert graphs.y[split.valid].bincount().tolist() == [3, 3, 3] or len(split.valid) == 10
    with pytest.raises(ConfigError, match=r"valid=1: must lie"):
        with_validation(fold, graphs.y, 1)
    with pytest.raises(ConfigError, match=r"validation part"):
        with_validation(split, graphs.y, 0.1)


def test_motifs_differ_by_their_edges_alone() -> None:
    graphs = motif_graphs(40, classes=4, seed=3)
    assert graphs.classes == ("cycle", "house", "star", "clique")
    assert graphs.y.bincount().tolist() == [10, 10, 10, 10]
    assert bool((graphs.x == 1).all())
    for graph in graphs:
        # A tree of n nodes has n - 1 edges; the motif brings six, one joins it.
        motif = [6, 5, 6, 4][int(graph.y)]
        tree = graph.num_nodes - motif
        assert graph.num_edges == 2 * (tree - 1 + 1 + 6)
    assert motif_graphs(40, seed=3).edge_index.equal(motif_graphs(40, seed=3).edge_index)
    with pytest.raises(ConfigError, match=r"classes=5: there must be"):
        motif_graphs(40, classes=5)
