"""BioIE and its relatives: formulas, packing, odd texts, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from relation_tools import batch_of, model_for, some_relations, tree_task
from torch import Tensor
from torch.nn import functional as F

from graphrec.errors import ConfigError
from graphrec.graph.relations import BioIE, DenseBlock, PackedLSTM, TextBatches
from graphrec.graph.relations.batches import BUCKETS, PLACES, edge_kinds
from graphrec.graph.relations.words import BagOfWords
from graphrec.module_estimator import ClassMetrics
from graphrec.pipelines.relations import shortest_stretches, word_pieces
from graphrec.pipelines.relations.builder import Builder
from graphrec.registry import create_model, list_models
from graphrec.training import TrainConfig, Trainer

KINDS: list[dict[str, Any]] = [
    {},
    {"encoder": "linear", "tree": "mean", "mark_dim": 0, "place_dim": 0},
    {"tree": "none", "guided": 0, "pieces": False, "bag": False, "pools": ()},
    {"guided": 2, "sublayers": 4, "pos_dim": 0},
]


def dense_block(block: DenseBlock, x: Tensor, weights: Tensor, degree: Tensor | float) -> Tensor:
    """The block's formula on matrices: x (L, d), weights (H, L, L)."""
    outputs = []
    for head, matrix in enumerate(weights):
        z, found = x, []
        for weight, bias in zip(block.weight, block.bias, strict=True):
            once = (matrix @ z) @ weight[head] + bias[head]
            again = z @ weight[head] + bias[head]
            found.append(F.relu((once + again) / (degree + 1)))
            z = torch.cat([z, found[-1]], 1)
        outputs.append(torch.cat(found, 1) + x)
    return block.join(torch.cat(outputs, 1))


def adjacency(relations: Any, index: int) -> Tensor:
    return relations.batch([index]).adjacency()[0]


def sentence_weights(model: BioIE, x: Tensor) -> Tensor:
    q, k = model.among[0].query(x), model.among[0].key(x)  # type: ignore[operator, union-attr]
    heads = model.among[0].heads  # type: ignore[union-attr]
    size = x.shape[1] // heads  # type: ignore[operator]
    return torch.stack(
        [
            (q[:, h * size : (h + 1) * size] @ k[:, h * size : (h + 1) * size].T / size**0.5).softmax(-1)
            for h in range(heads)  # type: ignore[arg-type]
        ]
    )


def read(model: BioIE, relations: Any, index: int, tokens: Tensor) -> Tensor:
    """The classifier and the bag of words on the tokens of one instance."""
    inside = relations.batch([index]).entity[0]
    first, last = shortest_stretches(relations)[index].tolist()
    parts = [tokens.amax(0), *(tokens[one].amax(0) if one.any() else 0 * tokens[0] for one in inside)]
    parts += [tokens.mean(0), tokens[first:last].amax(0) if last > first else 0 * tokens[0]]
    found = model.classifier(model.reader(torch.cat(parts)))
    if model.bag is None:
        return found
    scores = torch.stack([word_scores(model.bag, relations, w) for w in relations.tokens(index)])
    whole, near = scores.chunk(2, 1)
    found = found + whole.sum(0) / len(scores) ** 0.5
    return found + near[first:last].sum(0) / max(last - first, 1) ** 0.5


def word_scores(bag: BagOfWords, relations: Any, word: str) -> Tensor:
    pieces = word_pieces(["", "", word], BUCKETS).ids
    assert bag.table.piece is not None
    return bag.table.word.weight[relations.words.index(word)] + bag.table.piece.weight[pieces].sum(0)


@pytest.mark.parametrize("index", [1, 2, 4, 5])
def test_aggcn_on_dense_matrices(index: int) -> None:
    relations = some_relations()
    options = {"encoder": "linear", "tree": "mean", "mark_dim": 0, "place_dim": 0, "sublayers": 4}
    model = model_for(relations, **options)
    x = model.context(batch_of(relations, [index], shared=True))
    matrix = adjacency(relations, index)
    assert model.tree_block is not None
    first = dense_block(model.tree_block, x, matrix[None], matrix.sum(1, keepdim=True))
    second = dense_block(model.guided[0], first, sentence_weights(model, first), 1.0)  # type: ignore[arg-type]
    wanted = read(model, relations, index, model.fuse(torch.cat([first, second], 1)))
    found = model(batch_of(relations, shared=True))[index]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("index", range(6))
def test_formulas(index: int) -> None:
    """Attention along the tree's edges by their label and direction, then among all tokens."""
    relations = some_relations()
    model = model_for(relations)
    x = model.context(batch_of(relations, [index]))
    matrix, batch = adjacency(relations, index), relations.batch([index])
    assert model.edges is not None
    q, k = (one(x).view(len(x), 2, -1) for one in (model.edges.query, model.edges.key))
    logits = torch.einsum("ihd,jhd->hij", q, k) / q.shape[-1] ** 0.5
    for i, j in matrix.nonzero().tolist():  # i looks at j
        down = int(batch.head[0, i]) == j
        kind = 2 * int(batch.dep[0, i if down else j]) + (not down)
        logits[:, i, j] = logits[:, i, j] + model.edges.kind.weight[kind]
    weights = logits.masked_fill(matrix == 0, -torch.inf).softmax(-1).nan_to_num(0.0)
    assert model.tree_block is not None
    first = dense_block(model.tree_block, x, weights, 1.0)
    second = dense_block(model.guided[0], first, sentence_weights(model, first), 1.0)  # type: ignore[arg-type]
    wanted = read(model, relations, index, model.fuse(torch.cat([first, second], 1)))
    torch.testing.assert_close(model(batch_of(relations))[index], wanted, rtol=1e-5, atol=1e-6)


def test_lstm_equals_torchs_on_each_row() -> None:
    torch.manual_seed(0)
    layer, lengths = PackedLSTM(3, 8), torch.tensor([1, 4, 0, 7])
    ptr = F.pad(lengths.cumsum(0), (1, 0))
    x = torch.randn(12, 3)
    torchs = torch.nn.LSTM(3, 4, bidirectional=True, batch_first=True)
    own = dict(layer.forwards.state_dict())
    own |= {f"{k}_reverse": v for k, v in layer.backwards.state_dict().items()}
    torchs.load_state_dict(own)
    found = layer(x, ptr)
    for a, b in zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True):
        if a < b:
            torch.testing.assert_close(found[a:b], torchs(x[None, a:b])[0][0])
    assert layer(x[:0], torch.tensor([0])).shape == (0, 8)


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("edges", ["tree", "window", "both", "none"])
def test_batch_independence(options: dict[str, Any], edges: str) -> None:
    relations = some_relations()
    model = model_for(relations, **options)
    shared = model.embed.shared
    every = model(batch_of(relations, edges=edges, shared=shared))
    assert every.shape == (6, 2)
    assert torch.isfinite(every).all()
    for i in range(6):
        alone = model(batch_of(relations, [i], edges=edges, shared=shared))
        torch.testing.assert_close(alone[0], every[i], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", KINDS)
def test_order_of_a_batch(options: dict[str, Any]) -> None:
    relations = some_relations()
    model = model_for(relations, **options)
    order = [4, 2, 0, 5, 1, 3]
    shared = model.embed.shared
    found = model(batch_of(relations, order, shared=shared))
    torch.testing.assert_close(found, model(batch_of(relations, shared=shared))[order], rtol=1e-5, atol=1e-6)


def test_shared_rows_are_read_once() -> None:
    relations = some_relations()
    model = model_for(relations, mark_dim=0, place_dim=0)
    once, each = batch_of(relations, shared=True), batch_of(relations)
    assert len(once.texts.ptr) - 1 == 4
    assert len(each.texts.ptr) - 1 == 6
    torch.testing.assert_close(model(once), model(each), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", KINDS)
def test_every_parameter_has_a_gradient(options: dict[str, Any]) -> None:
    relations = some_relations()
    model = model_for(relations, **options)
    batch = batch_of(relations, shared=model.embed.shared)
    model.training_loss(batch).backward()
    for name, one in model.named_parameters():
        assert one.grad is not None, name
        assert torch.isfinite(one.grad).all(), name
        if not name.endswith(("among.0.key.bias", "edges.key.bias")):  # a softmax ignores what all keys share
            assert one.grad.abs().sum() > 0, name


def test_gradient_of_the_loss() -> None:
    relations = some_relations()
    model = model_for(relations, hidden=4, heads=2).double()
    batch = batch_of(relations, [1, 4])
    weight = model.fuse.weight
    loss = model.training_loss(batch)
    loss.backward()
    step = 1e-6 * torch.randn_like(weight)
    with torch.no_grad():
        weight += step
    later = model.training_loss(batch)
    assert weight.grad is not None
    torch.testing.assert_close(later - loss, (weight.grad * step).sum(), rtol=1e-3, atol=1e-12)


def test_weights_of_classes_and_the_penalty() -> None:
    relations = some_relations()
    model = model_for(relations, pool_penalty=0.5, label_smoothing=0.0)
    batch = batch_of(relations)
    model.class_weight.copy_(torch.tensor([3.0, 1.0]))
    loss = F.cross_entropy(model(batch), batch.labels, torch.tensor([3.0, 1.0]))
    penalty = 0.5 * model.pooled(batch)[0].square().sum(1).mean()
    torch.testing.assert_close(model.training_loss(batch), loss + penalty)


def test_kinds_of_edges() -> None:
    relations = some_relations()
    deps = len(relations.dep_names)
    batch = batch_of(relations, [1], edges="both", reach=2)
    graph = batch.topology.graph
    pairs = {(int(i), int(j), int(k)) for i, j, k in zip(graph.row, graph.index, batch.kind, strict=True)}
    dep = relations.batch([1]).dep[0].tolist()
    tree = {(0, 1, 2 * dep[0]), (1, 0, 2 * dep[0] + 1), (2, 1, 2 * dep[2]), (1, 2, 2 * dep[2] + 1)}
    tree |= {(4, 2, 2 * dep[4]), (2, 4, 2 * dep[4] + 1)}
    place = {-2: 0, -1: 1, 1: 2, 2: 3}
    window = {(i, i + p, 2 * deps + n) for i in range(5) for p, n in place.items() if 0 <= i + p < 5}
    assert pairs == tree | window
    assert int(batch.kind.max()) < edge_kinds(deps, 2)
    with pytest.raises(ConfigError, match="edges='trees': must be one of tree"):
        batch_of(relations, edges="trees")


def test_batches_hold_every_instance_once_and_repeat_by_seed() -> None:
    relations = tree_task(53, 0)
    index = torch.arange(3, 53)
    for shared in (False, True):
        source = TextBatches(
            relations, index, 8, edges="tree", reach=3, shared=shared, shuffle=True, seed=4, pool=2
        )
        epochs = [[b.texts.word.tolist() for b in source.epoch(e)] for e in (0, 0, 1)]
        assert epochs[0] == epochs[1] != epochs[2]
        assert list(map(len, epochs)) == [source.steps] * 3 == [7] * 3
        rest = [b.texts.word.tolist() for b in source.epoch(0, 5)]
        assert rest == epochs[0][5:]
        labels = torch.cat([b.labels for b in source.epoch(0)])
        assert torch.equal(labels.sort().values, relations.y[index].sort().values)
    plain = TextBatches(relations, index, 8, edges="tree", reach=3)
    labels = torch.cat([b.labels for b in plain.epoch(0)])
    assert torch.equal(labels, relations.y[index[plain.order]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 9}, "hidden=9: must be a multiple of heads, 2"),
        ({"hidden": 8, "sublayers": 3}, "must be a multiple of sublayers, 3"),
        ({"encoder": "gru"}, "encoder='gru': must be lstm or linear"),
        ({"tree": "sum"}, "tree='sum': must be attention, mean or none"),
        ({"pools": ("max",)}, "pools: 'max' must be mean or stretch"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model_for(some_relations(), **{"sublayers": 1, **options})


def test_names_build_what_they_say() -> None:
    assert list_models(task="relation") == ["aggcn", "bilstm", "bioie", "cgcn"]
    sizes = (20, 5, 4, 3, 5)
    aggcn = create_model("aggcn", *sizes)
    assert isinstance(aggcn.encoder, torch.nn.Linear)
    assert aggcn.embed.mark is None
    assert aggcn.embed.table.piece is None
    assert aggcn.bag is None
    assert aggcn.guided[0].heads == 2
    assert [tuple(w.shape) for w in aggcn.guided[0].weight] == [(2, 300 + 75 * n, 75) for n in range(4)]
    assert create_model("bilstm", *sizes).tree_block is None
    assert len(create_model("cgcn", *sizes).guided) == 0
    assert create_model("bioie", *sizes, heads=8).edges.heads == 8


def test_learns_what_only_the_tree_tells() -> None:
    """A network with the tree solves it; the same network without one cannot."""
    accuracy = {}
    relations = tree_task(500, 1)
    parts = torch.arange(500).split([300, 200])
    for edges in ("tree", "none"):
        train, test = (
            TextBatches(relations, part, 20, edges=edges, reach=3, shuffle=i == 0)
            for i, part in enumerate(parts)
        )
        model = model_for(relations, hidden=16, dropout=0.0, word_dropout=0.0, mark_dim=8)
        config = TrainConfig(
            epochs=6, learning_rate=0.01, scheduler="none", progress=False, accelerator="cpu"
        )
        trainer = Trainer(config)
        trainer.fit(model, train)
        found = trainer.evaluate(model, test, ClassMetrics())["accuracy"]
        assert found is not None
        accuracy[edges] = found
    assert accuracy["tree"] > 0.85, accuracy
    assert accuracy["none"] < 0.65, accuracy


def test_places_by_hand() -> None:
    relations = some_relations()
    batch = batch_of(
        relations, [2, 5]
    )  # drug helps gene and gene2: entity 1 twice; y alone, entity 0 nowhere
    assert batch.places is not None
    first, second = batch.places[:5].T.tolist(), batch.places[5:].T.tolist()
    assert first[0] == [PLACES + step for step in (0, 1, 2, 3, 4)]
    assert first[1] == [PLACES + step for step in (-2, -1, 0, 1, 0)]
    assert second[0] == [2 * PLACES] * 7
    assert second[1] == [PLACES - step for step in (4, 4, 4, 3, 2, 1, 0)]
    assert batch_of(relations, [2], shared=True).places is None


def test_distances_are_told_apart_by_their_doublings() -> None:
    builder = Builder("long", 1)
    text = builder.add_text(["w"] * 120)
    builder.add_instance(text, [(0, 0, 1)], "a")
    places = batch_of(builder.finish(["a", "b"])).places
    assert places is not None
    begins = (places[:, 0].diff() > 0).nonzero().flatten() + 1
    assert begins.tolist() == [1, 2, 3, 4, 7, 13, 25, 49]


def test_pieces_tell_unknown_words_apart_and_lost_words_have_none() -> None:
    relations = some_relations()
    known = relations.recoded(relations.words[:4], keep=True)
    model = model_for(relations.recoded(relations.words[:4]))
    found = model(batch_of(known))
    pieceless = model_for(relations.recoded(relations.words[:4]), pieces=False)
    assert not torch.allclose(found[4], model(batch_of(relations.recoded(relations.words[:4])))[4])
    same = pieceless(batch_of(relations.recoded(relations.words[:4])))
    torch.testing.assert_close(pieceless(batch_of(known)), same)
    batch = batch_of(known)
    nothing = model.embed.table(batch, torch.ones(len(batch.texts.word), dtype=torch.bool))
    assert torch.equal(nothing, model.embed.table.word.weight[1].expand_as(nothing))


def test_word_dropout_reaches_the_bag() -> None:
    """What the network does not see of a text its bag of words does not see either."""
    relations = some_relations()
    model = model_for(relations, word_dropout=1.0, dropout=0.0, block_dropout=0.0).train()
    other = relations.recoded([*relations.words[:2], *relations.words[:1:-1]])
    for one, two in ((relations, other),):
        assert torch.equal(model(batch_of(one)), model(batch_of(two)))
    assert not torch.allclose(model.eval()(batch_of(relations)), model(batch_of(other)))
