"""BioIE, reconstructed: graph convolutions over dependency trees, enhanced by multi-head attention.

Wu, Liu, Gao, Gong, Wang, Li: BioIE: Biomedical information extraction with multi-head attention enhanced
graph convolutional network. BIBM 2021, arXiv:2110.13683.

**A reconstruction.** Of the paper only the abstract was at hand ("a hybrid neural network", "a multi-head
attention enhanced graph convolutional network ... while resisting the noise"), and no official code is known.
The arithmetic follows its nearest relative with public code, AGGCN (Guo, Zhang, Lu, ACL 2019,
arXiv:1906.07510; https://github.com/Cartus/AGGCN, MIT); the hybrid is a recurrent layer under the graph
convolutions, and the dependency tree's own edges carry attention weights as well:

1. words, parts of speech and, on request, marks of the entities are embedded; an LSTM in both directions, or
   a linear layer, gives each token its context;
2. a dense block of convolutions along the edges of the tree, with weights per head from both ends and the
   dependency's label (``tree="attention"``) or with the plain adjacency matrix (``"mean"``, as AGGCN);
3. dense blocks on attention among all tokens of the text (AGGCN's attention-guided blocks);
4. the outputs of all blocks go through a linear layer; maxima over the text and over each entity's tokens are
   joined and classified by a perceptron. The loss is cross entropy, and ``pool_penalty`` times the squared
   length of the text's maximum.

`cards` makes AGGCN, a C-GCN without pruning and a plain BiLSTM of it, to compare with.
Texts without a parse have edges to their neighbours in a window in place of a tree, or none: the rest works
as it is, and is no syntax.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.errors import ConfigError
from graphrec.kernels.graph import segment_reduce

from .batches import TextBatch, edge_kinds
from .layers import DenseBlock, EdgeAttention, PackedLSTM, SentenceAttention, plain_sum

UNKNOWN_WORD = 1


class BioIE(nn.Module):
    """Classifies relation instances.

    Args:
        words: Words in the vocabulary, the first two padding and unknown.
        pos: Parts of speech in theirs.
        deps: Dependency labels in theirs.
        entities: K.
        classes: C.
        hidden: Width d; a multiple of ``heads``, of ``sublayers`` and of 2.
        word_dim, pos_dim, mark_dim: Widths of the embeddings. ``mark_dim`` says to every token whether it
            belongs to the instance's entities, which are else met only at the end, by the maxima over their
            tokens. Without it (0) a text is read once for all of its instances in a batch.
        encoder: ``"lstm"`` or ``"linear"``.
        tree: ``"attention"``, ``"mean"`` or ``"none"``: how the block along edges weighs them.
        guided: Blocks on attention among all tokens.
        sublayers: Of every dense block.
        heads: H, of both attentions.
        dropout: Of embeddings, and of what the classifier reads.
        block_dropout: In dense blocks.
        word_dropout: Share of the words that training takes for unknown.
        pool_penalty: See above.
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
        mark_dim: int = 0,
        encoder: str = "lstm",
        tree: str = "attention",
        guided: int = 1,
        sublayers: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
        block_dropout: float = 0.1,
        word_dropout: float = 0.04,
        pool_penalty: float = 0.002,
        reach: int = 3,
    ) -> None:
        super().__init__()
        _check(hidden, sublayers, heads, encoder, tree)
        self.word_dropout, self.pool_penalty, self.reach = word_dropout, pool_penalty, reach
        self.word = nn.Embedding(words, word_dim)
        self.pos = nn.Embedding(pos, pos_dim) if pos_dim else None
        self.mark = nn.Linear(entities, mark_dim, bias=False) if mark_dim else None
        width = word_dim + pos_dim + mark_dim
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
            nn.Linear((1 + entities) * hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.classifier = nn.Linear(hidden, classes)
        self.register_buffer("class_weight", torch.ones(classes), persistent=False)
        nn.init.uniform_(self.word.weight, -0.1, 0.1)

    class_weight: Tensor

    def embed(self, batch: TextBatch) -> Tensor:
        """What is known of each token by itself, (N, word_dim + pos_dim + mark_dim)."""
        texts, word = batch.texts, batch.texts.word
        if self.training and self.word_dropout:
            lost = torch.rand(word.shape, device=word.device) < self.word_dropout
            word = word.masked_fill(lost, UNKNOWN_WORD)
        parts = [self.word(word)]
        if self.pos is not None:
            parts.append(self.pos(texts.pos))
        if self.mark is not None:
            parts.append(self.mark(texts.mark.to(parts[0].dtype)))
        return self.dropout(torch.cat(parts, 1))

    def context(self, batch: TextBatch) -> Tensor:
        """Tokens in their context, before any graph, (N, d)."""
        x = self.embed(batch)
        return self.encoder(x, batch.texts.ptr) if isinstance(self.encoder, PackedLSTM) else self.encoder(x)

    def tokens(self, batch: TextBatch) -> Tensor:
        """Tokens after all blocks, (N, d)."""
        x, found = self.context(batch), []
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

    def pooled(self, batch: TextBatch) -> tuple[Tensor, Tensor]:
        """Maxima over each instance's text (b, d) and its entities (b, K * d); 0 for one unmentioned."""
        x, texts = self.tokens(batch), batch.texts
        text = segment_reduce(x, texts.ptr, "max")[texts.row]
        entity = segment_reduce(x[texts.member], texts.member_ptr, "max")
        return text, entity.view(len(text), -1)

    def logits(self, batch: TextBatch) -> Tensor:
        """(b, C)."""
        return self._read(*self.pooled(batch))

    def _read(self, text: Tensor, entity: Tensor) -> Tensor:
        found: Tensor = self.classifier(self.reader(self.dropout(torch.cat([text, entity], 1))))
        return found

    def forward(self, batch: TextBatch) -> Tensor:
        """Logits (b, C)."""
        return self.logits(batch)

    def training_loss(self, batch: TextBatch) -> Tensor:
        """Mean cross entropy, by the weights of the classes, and the penalty on the pooled text."""
        text, entity = self.pooled(batch)
        loss = F.cross_entropy(self._read(text, entity), batch.labels, self.class_weight)
        return loss + self.pool_penalty * text.square().sum(1).mean()

    def predict(self, batch: TextBatch) -> Tensor:
        """Probabilities (b, C)."""
        return self.logits(batch).softmax(-1)


def _check(hidden: int, sublayers: int, heads: int, encoder: str, tree: str) -> None:
    for name, part in (("sublayers", sublayers), ("heads", heads), ("the directions of an LSTM", 2)):
        if part < 1 or hidden % part:
            raise ConfigError(f"hidden={hidden}: must be a multiple of {name}, {part}")
    if encoder not in ("lstm", "linear"):
        raise ConfigError(f"encoder={encoder!r}: must be lstm or linear")
    if tree not in ("attention", "mean", "none"):
        raise ConfigError(f"tree={tree!r}: must be attention, mean or none")
