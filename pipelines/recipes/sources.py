"""Where the data of a recipe come from. Each function's keyword-only arguments are the options of its source.

To add one: a function of a `DataFolder` under `SOURCES.register(kind)`; heavy imports belong inside. The
annotations are read when this module loads, so they are real objects and not texts.
"""

# No `from __future__ import annotations` here: pydantic needs the annotations themselves.
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from graphrec.errors import ConfigError, DataError

from .folder import DataFolder
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch_geometric.data import Data

    from ..eeg import EEGSet, Windows
    from ..graphs import GraphSet
    from ..hypergraphs import Hypergraph
    from ..images import ImageSet

SOURCES = Vocabulary("data", "source")


@dataclass(frozen=True)
class TableSource:
    """A table and what its columns are for; the estimator opens it.

    Attributes:
        path: File, folder, glob or URL.
        arguments: Further keyword arguments of the estimator's ``fit``.
    """

    path: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Divided:
    """Data that come with splits, for a source that reads both; ``split: {kind: given}`` takes them.

    Attributes:
        data: What the task takes.
        splits: Such as folds.
    """

    data: Any
    splits: Sequence[Any]


@SOURCES.register("graphs")
def tu_text(
    folder: DataFolder,
    *,
    path: str,
    features: Literal["auto", "tags", "degree", "attributes", "constant"] = "auto",
) -> "GraphSet":
    """A TU set as one text file, as GIN and DGCNN ship it."""
    from ..graphs import read_tu_text

    return read_tu_text(folder.file(path), features=features)


@SOURCES.register("graphs")
def tu_folder(folder: DataFolder, *, path: str, name: str | None = None) -> "GraphSet":
    """A TU set as the collection's own archive unpacks."""
    from ..graphs import read_tu_folder

    return read_tu_folder(folder.file(path), name)


@SOURCES.register("graphs")
def graph_tables(
    folder: DataFolder,
    *,
    nodes: str,
    edges: str,
    labels: str,
    graph: str = "graph",
    node: str = "node",
    edge_source: str = "source",
    edge_target: str = "target",
    label: str = "label",
    features: list[str] | None = None,
    undirected: bool = False,
) -> "GraphSet":
    """Many graphs as three tables: nodes, edges and labels."""
    from ..graphs import EdgePolicy, read_graphs

    tables = [
        folder.table(p, f"data.{k}") for k, p in (("nodes", nodes), ("edges", edges), ("labels", labels))
    ]
    return read_graphs(
        *tables,
        graph=graph,
        node=node,
        source=edge_source,
        target=edge_target,
        label=label,
        features=features,
        policy=EdgePolicy(undirected=undirected),
    )


@SOURCES.register("graphs")
def motifs(
    folder: DataFolder, *, graphs: int = 300, nodes: int = 20, classes: Literal[2, 3, 4] = 2, seed: int = 0
) -> "GraphSet":
    """Generated graphs: random trees, each with a motif that is its class; needs no file."""
    from ..graphs.motifs import motif_graphs

    return motif_graphs(graphs, nodes=nodes, classes=classes, seed=seed)


@SOURCES.register("graphs")
def connectivity(
    folder: DataFolder, *, graphs: int = 600, least: int = 20, most: int = 36, seed: int = 0
) -> "GraphSet":
    """Generated graphs of two components and ``least`` to ``most`` nodes: are the two marked ones in one?"""
    from ..graphs import connectivity_graphs

    return connectivity_graphs(graphs, nodes=(least, most), seed=seed)


@SOURCES.register("graphs")
def colour_counting(
    folder: DataFolder,
    *,
    graphs: int = 600,
    least: int = 10,
    most: int = 30,
    largest: int = 5,
    seed: int = 0,
) -> "GraphSet":
    """Generated graphs of coloured nodes: how many have the first colour, up to ``largest``?"""
    from ..graphs import colour_counting_graphs

    return colour_counting_graphs(graphs, nodes=(least, most), most=largest, seed=seed)


@SOURCES.register("graphs")
def pyg_graphs(folder: DataFolder, *, dataset: str, arguments: dict[str, Any] = {}) -> "GraphSet":  # noqa: B006
    """A data set of `torch_geometric.datasets` with many graphs, which PyG downloads into the folder."""
    from ..graphs import from_pyg

    return from_pyg(list(_pyg_dataset(folder, dataset, arguments)), name=dataset)


@SOURCES.register("graph")
def planetoid(
    folder: DataFolder, *, path: str, name: str, normalise: bool = True, valid: int = 500
) -> "Data":
    """Cora, Citeseer or Pubmed with the public split, words divided by their number in each paper."""
    from ..graphs import read_planetoid, row_normalised

    data = read_planetoid(folder.file(path), name, valid=valid)
    if normalise:
        data.x = row_normalised(data.x)
    return data


@SOURCES.register("graph")
def masked_npz(folder: DataFolder, *, path: str) -> "Data":
    """A heterophilous graph of Platonov et al., or another .npz of that form, with its splits."""
    from ..graphs import read_masked_npz

    return read_masked_npz(folder.file(path))


@SOURCES.register("graph")
def node_tables(
    folder: DataFolder,
    *,
    nodes: str,
    edges: str,
    labels: str | None = None,
    node: str = "node",
    edge_source: str = "source",
    edge_target: str = "target",
    label: str = "label",
    part: str | None = None,
    features: list[str] | None = None,
    undirected: bool = False,
    unlabelled: bool = False,
) -> "Data":
    """One graph as tables of nodes and edges; ``part`` names a column that says train, valid or test."""
    from ..graphs import EdgePolicy, read_graph

    return read_graph(
        folder.table(nodes, "data.nodes"),
        folder.table(edges, "data.edges"),
        None if labels is None else folder.table(labels, "data.labels"),
        node=node,
        source=edge_source,
        target=edge_target,
        label=label,
        split=part,
        features=features,
        unlabelled=unlabelled,
        policy=EdgePolicy(undirected=undirected),
    )


@SOURCES.register("graph")
def karate(folder: DataFolder) -> "Data":
    """Zachary's karate club, as networkx has it: 34 members, 2 sides; features say who a node is."""
    import networkx
    import torch

    from ..graphs import from_networkx

    club = networkx.karate_club_graph()
    sides = torch.tensor([side != "Mr. Hi" for _, side in club.nodes(data="club")])
    data = from_networkx(club, name="karate club")
    data.x, data.y = torch.eye(club.number_of_nodes()), sides.long()
    return data


@SOURCES.register("graph")
def pyg_graph(folder: DataFolder, *, dataset: str, arguments: dict[str, Any] = {}) -> "Data":  # noqa: B006
    """A data set of `torch_geometric.datasets` that is one graph, which PyG downloads into the folder."""
    from ..graphs import from_pyg

    found = _pyg_dataset(folder, dataset, arguments)
    if len(found) != 1:
        raise ConfigError(f"data.dataset: {dataset} holds {len(found)} graphs; take source: pyg_graphs")
    return from_pyg(found[0], name=dataset)


def _pyg_dataset(folder: DataFolder, name: str, arguments: dict[str, Any]) -> Any:
    import inspect

    from torch_geometric import datasets

    from .complaints import near

    known = [one for one in datasets.__all__ if isinstance(getattr(datasets, one), type)]
    if name not in known:
        raise ConfigError(f"data.dataset: PyG has no {name!r}{near(name, known)}")
    make = getattr(datasets, name)
    options = dict(arguments)
    if "root" in inspect.signature(make).parameters:
        options = {"root": str(folder.path / "pyg" / name), **options}
    try:
        return make(**options)
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"data.arguments: PyG's {name} refuses {arguments!r} ({error})") from error
    except OSError as error:
        raise DataError(
            f"data.dataset: PyG's {name} cannot be had ({' '.join(str(error).split())})"
        ) from error


@SOURCES.register("hypergraph")
def hypergraph_npz(folder: DataFolder, *, path: str) -> "Hypergraph":
    """CC-Cora, CC-Citeseer, CA-Cora and others of HyperGCN, as an .npz."""
    from ..hypergraphs import read_hypergraph_npz

    return read_hypergraph_npz(folder.file(path))


@SOURCES.register("hypergraph")
def planetoid_hypergraph(folder: DataFolder, *, path: str, name: str, pairs: bool = True) -> "Hypergraph":
    """Cora or Citeseer as a hypergraph: every vertex with its neighbours, and with ``pairs`` every edge."""
    from ..graphs import read_planetoid
    from ..hypergraphs import from_graph

    return from_graph(read_planetoid(folder.file(path), name), pairs=pairs, name=name)


@SOURCES.register("hypergraph")
def incidence_tables(
    folder: DataFolder,
    *,
    incidence: str,
    vertices: str,
    vertex: str = "vertex",
    edge: str = "edge",
    weight: str | None = None,
    label: str = "label",
    features: list[str] | None = None,
    unlabelled: bool = False,
) -> "Hypergraph":
    """A hypergraph as two tables: who is in which hyperedge, and the vertices."""
    from ..hypergraphs import read_incidence

    return read_incidence(
        folder.table(incidence, "data.incidence"),
        folder.table(vertices, "data.vertices"),
        vertex=vertex,
        edge=edge,
        weight=weight,
        label=label,
        features=features,
        unlabelled=unlabelled,
    )


@SOURCES.register("windows")
def eeg_file(
    folder: DataFolder,
    *,
    path: str,
    read: dict[str, Any] = {},  # noqa: B006
    montage: str | dict[str, Any] = "epoc",
    window: float = 1.0,
    stride: float | None = None,
    outliers: Literal["interpolate", "clip", "mark", "refuse"] | None = None,
    reference: Literal["average"] | None = None,
    low: float | None = None,
    high: float | None = None,
    max_abs: bool = False,
) -> "Windows":
    """Recordings from ARFF, MATLAB's format, EDF or a table; ``read`` is for the reader (rate, label ...)."""
    from ..eeg import open_eeg

    return _windows(
        open_eeg(folder.file(path), **read), montage, window, stride, outliers, reference, low, high, max_abs
    )


@SOURCES.register("windows")
def dreamer(
    folder: DataFolder,
    *,
    path: str = "DREAMER.mat",
    target: Literal["valence", "arousal", "dominance"] = "valence",
    montage: Literal["epoc", "epoc3", "epoc5"] = "epoc",
    seconds: float | None = 60.0,
    window: float = 1.0,
    stride: float | None = None,
    outliers: Literal["interpolate", "clip", "mark", "refuse"] | None = None,
    reference: Literal["average"] | None = None,
    low: float | None = None,
    high: float | None = None,
    max_abs: bool = True,
) -> "Windows":
    """DREAMER, the last ``seconds`` of every clip, each divided by its largest value, as HiSTN has it."""
    from ..eeg import last_seconds, read_dreamer

    clips = read_dreamer(folder.file(path), target)
    clips = clips if seconds is None else last_seconds(clips, seconds)
    return _windows(clips, montage, window, stride, outliers, reference, low, high, max_abs)


def _windows(
    recordings: "EEGSet",
    montage: str | dict[str, Any],
    window: float,
    stride: float | None,
    outliers: str | None,
    reference: str | None,
    low: float | None,
    high: float | None,
    max_abs: bool,
) -> "Windows":
    from ..eeg import Preparation, find_montage

    return Preparation(
        find_montage(montage).channels,
        window,
        stride,
        outliers,
        reference,
        None if low is None and high is None else (low, high),
        "max_abs" if max_abs else None,
        False,
        "majority",
    ).of_recordings(recordings)


@SOURCES.register("relations")
def nary_folds(
    folder: DataFolder,
    *,
    path: str,
    positive: str | None = None,
    valid: float = 0.1,
    draw: int = 0,
    drop_shared: bool = False,
) -> Divided:
    """Parsed drug-gene-mutation instances in given folds; ``drop_shared`` trains on no test text."""
    from ..relations import read_nary_folds

    where = folder.file(path)
    return Divided(
        *read_nary_folds(where, positive=positive, valid=valid, seed=draw, drop_shared=drop_shared)
    )


@SOURCES.register("relations")
def relation_files(
    folder: DataFolder, *, train: str, valid: str | None = None, test: str | None = None
) -> Divided:
    """Texts with entities in files that say which part they are: ChemProt, parsed JSON, PubTator."""
    from ..relations import join_parts, read_relations

    given = {"train": train, "valid": valid, "test": test}
    files = {part: folder.file(p, f"data.{part}") for part, p in given.items() if p is not None}
    relations, split = join_parts(**{part: read_relations(file) for part, file in files.items()})
    return Divided(relations, [split])


@SOURCES.register("relations")
def relation_file(folder: DataFolder, *, path: str) -> Any:
    """Texts with entities in one file: ChemProt's marked sentences, parsed JSON, or PubTator's format."""
    from ..relations import read_relations

    return read_relations(folder.file(path))


@SOURCES.register("table")
def table(
    folder: DataFolder,
    *,
    path: str,
    label: str | list[str],
    roles: dict[str, str] = {},  # noqa: B006
    ignore: list[str] = [],  # noqa: B006
    weight: str | None = None,
    group: str | None = None,
    time: str | None = None,
) -> TableSource:
    """A log of impressions: a parquet, CSV or Arrow file, a glob or a URL."""
    columns = {
        "label": label,
        "roles": roles,
        "ignore": ignore,
        "weight": weight,
        "group": group,
        "time": time,
    }
    arguments = {key: value for key, value in columns.items() if value not in (None, [], {})}
    return TableSource(folder.table(path, "data.path"), arguments)


@SOURCES.register("images")
def images(
    folder: DataFolder,
    *,
    path: str,
    image: str | None = None,
    label: str | None = None,
    part: str | None = None,
    group: str | None = None,
) -> "ImageSet":
    """Images in folders of classes, archives of them, or listed in a table; ``part`` names a column."""
    from ..images import open_images

    return open_images(folder.file(path), image=image, label=label, split=part, group=group)


@SOURCES.register("images")
def drawn_shapes(
    folder: DataFolder, *, count: int = 400, side: int = 32, noise: float = 20.0, seed: int = 0
) -> "ImageSet":
    """Drawn circles, crosses, squares and triangles; needs no file."""
    from ..images import shape_images

    return shape_images(count, side, noise=noise, seed=seed)
