"""Affinity clusters against Borůvka by hand, distances against networkx; orders, ties, odd graphs."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.errors import ConfigError
from graphrec.graph.gsm import distances
from graphrec.graph.gsm.clusters import Hierarchy, affinity_clusters, singletons
from graphrec.graph.gsm.distances import at_levels, neighbours_at, pair_codes, scale_levels, within
from graphrec.graph.gsm.hashing import node_colours, row_hashes
from graphrec.graph.gsm.orders import degree_order, depth_first_order

GRAPHS = given(nodes=st.integers(1, 24), edges=st.integers(0, 40), seed=st.integers(0, 10_000))


def drawn(nodes: int, edges: int, seed: int, values: int | None = None) -> tuple[Any, Any, Any]:
    """Features, sources and targets: loops and repeated edges among them; of few values if asked for."""
    rng = np.random.default_rng(seed)
    source, target = rng.integers(0, nodes, (2, edges))
    x = rng.normal(size=(nodes, 3)) if values is None else rng.integers(0, values, (nodes, 1))
    return x.astype(np.float32), source, target


def clusters(x: Any, source: Any, target: Any, ptr: Any = None, rounds: int = 3) -> Hierarchy:
    return affinity_clusters(x, source, target, np.array([0, len(x)] if ptr is None else ptr), rounds=rounds)


def parts(labels: Any, names: Any = None) -> set[frozenset[int]]:
    """A partition as sets of nodes."""
    found = defaultdict(set)
    for node, label in enumerate(labels.tolist()):
        found[label].add(node if names is None else int(names[node]))
    return set(map(frozenset, found.values()))


def boruvka(x: Any, source: Any, target: Any) -> list[set[frozenset[int]]]:
    """Every round's clusters, edge by edge; different components join last."""
    cost = {
        frozenset((int(i), int(j))): float(np.square(x[i].astype(float) - x[j]).sum().astype(np.float32))
        for i, j in zip(source, target, strict=True)
        if i != j
    }
    levels = [{frozenset([node]) for node in range(len(x))}]
    while len(levels[-1]) > 1:
        joined = nx.Graph()
        joined.add_nodes_from(levels[-1])
        home = {node: one for one in levels[-1] for node in one}
        between = {e: c for e, c in cost.items() if len({home[node] for node in e}) == 2}
        for one in levels[-1]:
            mine = {e: c for e, c in between.items() if one in {home[node] for node in e}}
            if mine:
                joined.add_edge(*(home[node] for node in min(mine, key=lambda e: mine[e])))
        if not between:
            levels.append({frozenset(range(len(x)))})
            break
        levels.append({frozenset().union(*group) for group in nx.connected_components(joined)})
    return levels


@settings(max_examples=60)
@GRAPHS
def test_clusters_are_boruvkas(nodes: int, edges: int, seed: int) -> None:
    x, source, target = drawn(nodes, edges, seed)
    tree = clusters(x, source, target)
    assert [parts(level.cluster) for level in tree.levels] == boruvka(x, source, target)


@settings(max_examples=60)
@GRAPHS
def test_trees_do_not_depend_on_numbers(nodes: int, edges: int, seed: int) -> None:
    """Features of two values: nearly all costs tie."""
    x, source, target = drawn(nodes, edges, seed, values=2)
    old = np.random.default_rng(seed).permutation(nodes)
    tree, other = (
        clusters(x, source, target),
        clusters(x[old], np.argsort(old)[source], np.argsort(old)[target]),
    )
    assert len(tree.levels) == len(other.levels)
    for one, two in zip(tree.levels, other.levels, strict=True):
        assert parts(one.cluster) == parts(two.cluster, old)
    mine, theirs = depth_first_order(tree), depth_first_order(other)
    colours = node_colours(x, source, target, 3)
    assert np.array_equal(colours[mine.nodes], colours[old[theirs.nodes]]), "the same sequence but for ties"
    assert np.array_equal(mine.ties, theirs.ties)


@settings(max_examples=40)
@GRAPHS
def test_levels_are_nested_connected_and_shrink(nodes: int, edges: int, seed: int) -> None:
    x, source, target = drawn(nodes, edges, seed, values=3)
    tree, graph = clusters(x, source, target), nx.Graph()
    graph.add_nodes_from(range(nodes))
    graph.add_edges_from(zip(source.tolist(), target.tolist(), strict=True))
    components = set(map(frozenset, nx.connected_components(graph)))
    for number, level in enumerate(tree.levels[:-1]):
        found = parts(level.cluster)
        assert all(any(one <= other for other in parts(tree.levels[number + 1].cluster)) for one in found)
        assert all(nx.is_connected(graph.subgraph(one)) for one in found)
        if found != components:
            unfinished = len(found - components)
            after = parts(tree.levels[number + 1].cluster)
            assert len(after - (found & components)) <= unfinished / 2
    assert parts(tree.levels[-1].cluster) == {frozenset(range(nodes))}
    assert tree.height.tolist() == [len(tree.levels) - 1]
    assert len(tree.levels) <= np.log2(nodes) + 2


def test_odd_graphs() -> None:
    none = np.zeros(0, dtype=np.int64)
    ones = np.ones((4, 1), dtype=np.float32)
    assert len(clusters(ones[:1], none, none).levels) == 1
    apart = clusters(ones, none, none)
    assert [len(level) for level in apart.levels] == [4, 1]
    loops = np.array([0, 1, 1])
    assert [len(level) for level in clusters(ones, loops, loops).levels] == [4, 1]
    ring = np.arange(4)
    once, twice = (
        clusters(ones, ring, (ring + 1) % 4),
        clusters(ones, np.tile(ring, 2), np.tile((ring + 1) % 4, 2)),
    )
    assert [len(level) for level in once.levels] == [len(level) for level in twice.levels] == [4, 1]
    nothing = clusters(ones[:0], none, none, ptr=[0, 0, 0])
    assert len(nothing.levels) == 1
    assert nothing.height.tolist() == [0, 0]


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 15), st.integers(0, 20)), min_size=2, max_size=5), st.integers(0, 999)
)
def test_a_batch_holds_the_trees_of_its_graphs(sizes: list[tuple[int, int]], seed: int) -> None:
    drawings = [drawn(nodes, edges, seed + i, values=3) for i, (nodes, edges) in enumerate(sizes)]
    ptr = np.cumsum([0, *(len(x) for x, _, _ in drawings)])
    whole = clusters(
        np.concatenate([x for x, _, _ in drawings]),
        np.concatenate([source + start for (_, source, _), start in zip(drawings, ptr, strict=False)]),
        np.concatenate([target + start for (_, _, target), start in zip(drawings, ptr, strict=False)]),
        ptr,
    )
    order = depth_first_order(whole)
    for i, one in enumerate(drawings):
        alone, mine = clusters(*one), slice(ptr[i], ptr[i + 1])
        assert whole.height[i] == alone.height[0]
        for number, level in enumerate(alone.levels):
            assert parts(whole.levels[number].cluster[mine]) == parts(level.cluster)
        assert np.array_equal(order.nodes[mine] - ptr[i], depth_first_order(alone).nodes)
        for scales in (1, 3):
            levels = scale_levels(whole.height, scales, leaves=True)
            assert np.array_equal(levels[i], scale_levels(alone.height, scales, leaves=True)[0])


@settings(max_examples=40)
@GRAPHS
def test_clusters_stand_together(nodes: int, edges: int, seed: int) -> None:
    x, source, target = drawn(nodes, edges, seed, values=2)
    tree = clusters(x, source, target)
    order = depth_first_order(tree).nodes
    assert sorted(order.tolist()) == list(range(nodes))
    for level in tree.levels:
        assert (np.diff(level.cluster[order]) != 0).sum() == len(level) - 1


def test_small_parts_stand_first() -> None:
    """A pair beside three: the pair is read first, whatever the numbers."""
    x = np.array([[0], [0.1], [0.3], [9], [9.1]], dtype=np.float32)
    source, target = np.array([0, 1, 3, 2]), np.array([1, 2, 4, 3])
    tree = clusters(x, source, target)
    assert [len(level) for level in tree.levels] == [5, 2, 1]
    assert set(depth_first_order(tree).nodes[:2].tolist()) == {3, 4}


def test_nodes_are_ordered_by_degree() -> None:
    x = np.ones((4, 1), dtype=np.float32)
    source, target = np.array([0, 0, 0, 1, 2]), np.array([1, 2, 3, 2, 1])
    tree = singletons(x, source, target, np.array([0, 4]))
    order = degree_order(tree, np.array([3, 2, 2, 1]))
    assert order.nodes.tolist() == [3, 1, 2, 0]
    assert order.tied
    assert parts(order.ties) == {frozenset([0]), frozenset([1, 2]), frozenset([3])}


def test_colours_tell_what_message_passing_tells() -> None:
    path = np.arange(6)
    source, target = np.concatenate([path[:-1], path[1:]]), np.concatenate([path[1:], path[:-1]])
    x = np.zeros((6, 2), dtype=np.float32)
    assert len(set(node_colours(x, source, target, 0).tolist())) == 1
    assert len(set(node_colours(x, source, target, 1).tolist())) == 2
    for rounds in (2, 5):
        found = node_colours(x, source, target, rounds)
        assert np.array_equal(found, found[::-1])
        assert len(set(found.tolist())) == 3
    directed = node_colours(x[:3], np.array([0, 1]), np.array([1, 2]), 2)
    assert len(set(directed.tolist())) == 3, "directions count"
    double = node_colours(x[:4], np.array([0, 0, 2]), np.array([1, 1, 3]), 1)
    assert double[1] != double[3], "repeated edges count"
    assert len(set(row_hashes(np.array([[0.0], [-0.0]], dtype=np.float32)).tolist())) == 1


@settings(max_examples=30)
@given(nodes=st.integers(2, 20), edges=st.integers(0, 40), seed=st.integers(0, 999), hops=st.integers(1, 4))
def test_distances(nodes: int, edges: int, seed: int, hops: int) -> None:
    x, source, target = drawn(nodes, edges, seed)
    tree = singletons(x, source, target, np.array([0, nodes]))
    found = within(neighbours_at(tree, np.zeros(1, dtype=np.int64)), hops).toarray()
    graph = nx.Graph(zip(source.tolist(), target.tolist(), strict=True))
    graph.add_nodes_from(range(nodes))
    for i, reached in nx.all_pairs_shortest_path_length(graph):
        want = [reached.get(j, 0) if reached.get(j, 0) <= hops else 0 for j in range(nodes)]
        assert found[i].tolist() == want


@settings(max_examples=30)
@given(
    nodes=st.integers(1, 16),
    edges=st.integers(0, 24),
    seed=st.integers(0, 999),
    hops=st.integers(1, 3),
    scales=st.integers(1, 4),
    reach=st.integers(0, 20),
)
def test_codes_are_distances_in_coarsened_graphs(
    nodes: int, edges: int, seed: int, hops: int, scales: int, reach: int
) -> None:
    x, source, target = drawn(nodes, edges, seed, values=3)
    tree = clusters(x, source, target)
    order = depth_first_order(tree).nodes
    codes = pair_codes(tree, order, scales=scales, hops=hops, reach=reach)
    levels = scale_levels(tree.height, scales, leaves=True)[0]
    assert codes.shape == (nodes, 2 * reach + 1)
    for scale, level in enumerate(levels.tolist()):
        cluster = tree.levels[level].cluster
        graph = nx.Graph((int(cluster[i]), int(cluster[j])) for i, j in zip(source, target, strict=True))
        graph.add_nodes_from(cluster.tolist())
        far = dict(nx.all_pairs_shortest_path_length(graph))
        digit = codes // (hops + 2) ** scale % (hops + 2)
        for q in range(nodes):
            for k in range(max(0, q - reach), min(nodes, q + reach + 1)):
                steps = far[int(cluster[order[q]])].get(int(cluster[order[k]]), 99)
                assert digit[q, q + reach - k] == min(steps, hops + 1)


def test_levels_are_spread_over_the_tree() -> None:
    height = np.array([0, 1, 2, 7])
    assert scale_levels(height, 3, leaves=True).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 3, 6]]
    assert scale_levels(height, 3, leaves=False).tolist() == [[0, 0, 0], [1, 1, 1], [1, 2, 2], [1, 4, 7]]
    assert scale_levels(height, 1, leaves=True).tolist() == [[0]] * 4
    assert scale_levels(height, 1, leaves=False).ravel().tolist() == height.tolist()


def test_levels_are_numbered_apart() -> None:
    x, source, target = drawn(12, 20, 3)
    tree = clusters(
        np.concatenate([x, x]),
        np.concatenate([source, source + 12]),
        np.concatenate([target, target + 12]),
        [0, 12, 24],
    )
    labels = at_levels(tree, np.array([0, 1]))
    assert len(set(labels[:12].tolist())) == 12
    assert not set(labels[:12].tolist()) & set(labels[12:].tolist())


def test_too_many_paths_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    star = singletons(
        np.ones((50, 1), dtype=np.float32), np.zeros(49, dtype=np.int64), np.arange(1, 50), np.array([0, 50])
    )
    adjacency = neighbours_at(star, np.zeros(1, dtype=np.int64))
    assert within(adjacency, 2).nnz == 50 * 49
    monkeypatch.setattr(distances, "_MOST", 1000)
    with pytest.raises(ConfigError, match=r"hops=2: .* take fewer hops"):
        within(adjacency, 2)
    assert within(adjacency, 1).nnz == 98


def test_many_paths_between_two_nodes_count_once() -> None:
    """256 paths of two steps: a count in eight bits would be zero."""
    middle = np.arange(2, 258)
    source, target = np.repeat([0, 1], 256), np.tile(middle, 2)
    tree = singletons(np.ones((258, 1), dtype=np.float32), source, target, np.array([0, 258]))
    assert within(neighbours_at(tree, np.zeros(1, dtype=np.int64)), 2)[[0], [1]].item() == 2
