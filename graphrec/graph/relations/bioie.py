"""BioIE, reconstructed: graph convolutions over dependency trees, enhanced by multi-head attention.

Wu, Liu, Gao, Gong, Wang, Li: BioIE: Biomedical information extraction with multi-head attention enhanced
graph convolutional network. BIBM 2021, arXiv:2110.13683.

**A reconstruction.** Of the paper only the abstract was at hand ("a hybrid neural network", "a multi-head
attention enhanced graph convolutional network ... while resisting the noise"), and no official code is known.
The arithmetic follows its nearest relative with public code, AGGCN (Guo, Zhang, Lu, ACL 2019,
arXiv:1906.07510; https://github.com/Cartus/AGGCN, MIT); the hybrid is a recurrent layer under the graph
convolutions, and the dependency tree's own edges carry attention weights as well:

1. words, the beginnings and ends of words, parts of speech, marks of the entities and distances from them
   are embedded (`words`); an LSTM in both directions, or a linear layer, gives each token its context;
2. a dense block of convolutions along the edges of the tree, with weights per head from both ends and the
   dependency's label (``tree="attention"``) or with the plain adjacency matrix (``"mean"``, as AGGCN);
3. dense blocks on attention among all tokens of the text (AGGCN's attention-guided blocks);
4. the outputs of all blocks go through a linear layer; the maximum and the mean over the text and the maxima
   over each entity's tokens and over the shortest stretch that holds all entities are joined and classified
   by a perceptron. A bag of words adds scores of its own. The loss is cross entropy, and ``pool_penalty``
   times the squared length of the text's maximum.

What of this is neither in the abstract nor in AGGCN (pieces of words, distances, the stretch, the mean, the
bag) is there because training sets hold a few thousand sentences and no vectors from elsewhere: on ChemProt
a network without it falls behind a regression on words.

`cards` makes AGGCN, a C-GCN without pruning and a plain BiLSTM of it, to compare with.
Texts without a parse have edges to their neighbours in a window in place of a tree, or none: the rest works
as it is, and is no syntax.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.errors import ConfigError
from graphrec.kernels.graph import segment_reduce
from graphrec.training.arguments import check_number, check_whole

from .batches import TextBatch, edge_kinds
from .layers import DenseBlock, EdgeAttention, PackedLSTM, SentenceAttention, plain_sum
from .words import BagOfWords, TokenEmbedding


class BioIE(nn.Module):
    """Classifies relation instances.

    Args:
        words: Words in the vocabulary, the first two padding and unknown.
        pos: Parts of speech in theirs.
        deps: Dependency labels in theirs.
        entities: K.
        classes: C.
        hidden: Width d; a multiple of ``heads``, of ``sublayers`` and of 2.
        word_dim, pos_dim: Widths of the embeddings.
        mark_dim, place_dim: Widths of what tells every token whether it belongs to the instance's entities,
            and how far it is from each. Without both (0) the entities are met only at the end, and a text is
            read once for all of its instances in a batch.
        pieces: Whether words have beginnings and ends; see `word_pieces`.
        bag: Whether there is a bag of words.
        pools: What is joined beside the maxima over the text and the entities: ``"mean"``, ``"stretch"``.
        encoder: ``"lstm"`` or ``"linear"``.
        tree: ``"attention"``, ``"mean"`` or ``"none"``: how the block along edges weighs them.
        guided: Blocks on attention among all tokens.
        sublayers: Of every dense block.
        heads: H, of both attentions.
        dropout: Of embeddings, and of what the classifier reads.
        block_dropout: In dense blocks.
        word_dropout: Share of the words that training takes for unknown.
        pool_penalty: See above.
        label_smoothing: Of the cross entropy.
        reach: Of windows in texts without a parse, in tokens.

    Raises:
        ConfigError: An option is unknown, or widths do not divide.
    """

    def __init__(
        self,
        words: int,
        pos: int,
        deps: int,
        entities: int,
        classes: int,
        *,
        hidden: int = 64,
        word_dim: int = 64,
        pos_dim: int = 16,
        mark_dim: int = 16,
        place_dim: int = 16,
        pieces: bool = True,
        bag: bool = True,
        pools: Sequence[str] = ("mean", "stretch"),
        encoder: str = "lstm",
        tree: str = "attention",
        guided: int = 1,
        sublayers: int = 2,
        heads: int = 2,
        dropout: float = 0.3,
        block_dropout: float = 0.1,
        word_dropout: float = 0.2,
        pool_penalty: float = 0.0,
        label_smoothing: float = 0.1,
        reach: int = 3,
    ) -> None:
        super().__init__()
        sizes = {
            "hidden": hidden,
            "word_dim": word_dim,
            "sublayers": sublayers,
            "heads": heads,
            "reach": reach,
        }
        for name, size in sizes.items():
            check_whole(name, size)
        check_number("word_dropout", word_dropout, 0.0, math.nextafter(1.0, 2.0))  # 1 hides all words
        shares = {"dropout": dropout, "block_dropout": block_dropout}
        for name, share in {**shares, "label_smoothing": label_smoothing}.items():
            check_number(name, share, 0.0, 1.0)
        _check(hidden, sublayers, heads, encoder, tree, pools)
        self.word_dropout, self.label_smoothing = word_dropout, label_smoothing
        self.pool_penalty, self.reach, self.pools = pool_penalty, reach, tuple(pools)
        self.embed = TokenEmbedding(
            words,
            pos,
            entities,
            word_dim=word_dim,
            pos_dim=pos_dim,
            mark_dim=mark_dim,
            place_dim=place_dim,
            pieces=pieces,
            dropout=dropout,
        )
        self.bag = BagOfWords(words, classes, pieces=pieces) if bag else None
        width = self.embed.width
        self.encoder = PackedLSTM(width, hidden) if encoder == "lstm" else nn.Linear(width, hidden)
        attends = tree == "attention"
        self.edges = EdgeAttention(hidden, heads, edge_kinds(deps, reach)) if attends else None
        across = heads if attends else 1
        self.tree_block = DenseBlock(hidden, sublayers, across, block_dropout) if tree != "none" else None
        self.among = nn.ModuleList(SentenceAttention(hidden, heads) for _ in range(guided))
        self.guided = nn.ModuleList(
            DenseBlock(hidden, sublayers, heads, block_dropout) for _ in range(guided)
        )
        blocks = guided + (tree != "none")
        self.fuse = nn.Linear(blocks * hidden, hidden) if blocks else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.reader = nn.Sequential(
            nn.Linear((1 + entities + len(self.pools)) * hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(hidden, classes)
        self.register_buffer("class_weight", torch.ones(classes), persistent=False)

    class_weight: Tensor

    @property
    def reads(self) -> dict[str, Any]:
        """Arguments of `TextBatches` that follow from the network's."""
        return {"reach": self.reach, "shared": self.embed.shared}

    def context(self, batch: TextBatch, lost: Tensor | None = None) -> Tensor:
        """Tokens in their context, before any graph, (N, d); ``lost`` says which words are not seen."""
        x = self.embed(batch, lost)
        return self.encoder(x, batch.texts.ptr) if isinstance(self.encoder, PackedLSTM) else self.encoder(x)

    def tokens(self, batch: TextBatch, lost: Tensor | None = None) -> Tensor:
        """Tokens after all blocks, (N, d)."""
        x, found = self.context(batch, lost), []
        if self.tree_block is not None:
            x = self.along_edges(x, batch)
            found.append(x)
        for among, block in zip(self.among, self.guided, strict=True):
            x = block(x, among.gather(x, batch.texts.ptr))  # type: ignore[operator]
            found.append(x)
        return self.fuse(torch.cat(found, 1) if found else x)

    def along_edges(self, x: Tensor, batch: TextBatch) -> Tensor:
        """Tokens after the block along edges, (N, d)."""
        assert self.tree_block is not None
        graph = batch.topology.graph
        if self.edges is not None:
            return self.tree_block(x, self.edges.gather(x, graph, batch.kind))
        return self.tree_block(x, plain_sum(graph), graph.degree.to(x.dtype).unsqueeze(1))

    def pooled(self, batch: TextBatch, lost: Tensor | None = None) -> list[Tensor]:
        """What the classifier reads, (b, d) or (b, K * d) each: the text's maximum first, the entities' next.

        Of an entity that is not mentioned it is 0.
        """
        x, texts = self.tokens(batch, lost), batch.texts
        entity = segment_reduce(x[texts.member], texts.member_ptr, "max")
        found = [segment_reduce(x, texts.ptr, "max")[texts.row], entity.view(len(texts.row), -1)]
        if "mean" in self.pools:
            found.append(segment_reduce(x, texts.ptr, "mean")[texts.row])
        if "stretch" in self.pools:
            found.append(segment_reduce(x[batch.stretch], batch.stretch_ptr, "max"))
        return found

    def _read(self, pooled: list[Tensor], batch: TextBatch, lost: Tensor | None) -> Tensor:
        found: Tensor = self.classifier(self.reader(self.dropout(torch.cat(pooled, 1))))
        return found if self.bag is None else found + self.bag(batch, lost)

    def _lost(self, batch: TextBatch) -> Tensor | None:
        """Words that training does not see, bool (N,)."""
        if not self.training or not self.word_dropout:
            return None
        word = batch.texts.word
        return torch.rand(word.shape, device=word.device) < self.word_dropout

    def logits(self, batch: TextBatch) -> Tensor:
        """(b, C)."""
        lost = self._lost(batch)
        return self._read(self.pooled(batch, lost), batch, lost)

    def forward(self, batch: TextBatch) -> Tensor:
        """Logits (b, C)."""
        return self.logits(batch)

    def training_loss(self, batch: TextBatch) -> Tensor:
        """Mean cross entropy, by the weights of the classes, and the penalty on the pooled text."""
        lost = self._lost(batch)
        pooled = self.pooled(batch, lost)
        loss = F.cross_entropy(
            self._read(pooled, batch, lost),
            batch.labels,
            self.class_weight,
            label_smoothing=self.label_smoothing,
        )
        return loss + self.pool_penalty * pooled[0].square().sum(1).mean() if self.pool_penalty else loss

    def predict(self, batch: TextBatch) -> Tensor:
        """Probabilities (b, C)."""
        return self.logits(batch).softmax(-1)


def _check(hidden: int, sublayers: int, heads: int, encoder: str, tree: str, pools: Sequence[str]) -> None:
    for name, part in (("sublayers", sublayers), ("heads", heads), ("the directions of an LSTM", 2)):
        if hidden % part:
            raise ConfigError(f"hidden={hidden}: must be a multiple of {name}, {part}")
    if encoder not in ("lstm", "linear"):
        raise ConfigError(f"encoder={encoder!r}: must be lstm or linear")
    if tree not in ("attention", "mean", "none"):
        raise ConfigError(f"tree={tree!r}: must be attention, mean or none")
    unknown = [name for name in pools if name not in ("mean", "stretch")]
    if unknown:
        raise ConfigError(f"pools: {unknown[0]!r} must be mean or stretch")
