"""A logistic regression on the words around marked entities: what a relation network has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from graphrec.errors import DataError
from graphrec.pipelines.relations import RelationSet


class TfidfLogistic(nn.Module):
    """Inverse frequencies of terms, and a linear layer on the weighted, normalised counts.

    Args:
        terms: V.
        classes: C.
    """

    idf: Tensor

    def __init__(self, terms: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("idf", torch.ones(terms, dtype=torch.float64))
        self.linear = nn.Linear(terms, classes, dtype=torch.float64)

    def probabilities(self, texts: Sequence[str], terms: Sequence[str]) -> NDArray[np.float32]:
        """(n, C) of texts as `marked_texts` makes them."""
        counts = _counter(terms).transform(texts)
        weigh = TfidfTransformer(sublinear_tf=True)
        weigh.idf_ = self.idf.numpy()
        x = weigh.transform(counts)
        linear = self.linear
        logits = torch.from_numpy(x @ linear.weight.detach().numpy().T) + linear.bias.detach()
        return logits.softmax(1).float().numpy()


class Blend(nn.Module):
    """A network and the regression, whose probabilities are averaged.

    Args:
        network: Any relation network.
        floor: The regression.
    """

    share: Tensor

    def __init__(self, network: nn.Module, floor: TfidfLogistic) -> None:
        super().__init__()
        self.network, self.floor = network, floor
        self.register_buffer("share", torch.tensor(0.5, dtype=torch.float64))

    def mix(self, network: NDArray[np.float32], floor: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, C) of two (n, C)."""
        share = np.float32(self.share.item())
        return share * network + (1 - share) * floor

    def choose(self, network: NDArray[np.float32], floor: NDArray[np.float32], y: NDArray[np.int64]) -> None:
        """Take the network's share, in tenths, of the least log loss on validation instances."""

        def loss(tenths: int) -> float:
            right = (tenths * network + (10 - tenths) * floor)[np.arange(len(y)), y] / 10
            return float(-np.log(np.maximum(right, 1e-12)).mean())

        self.share.fill_(min(range(11), key=loss) / 10)


def marked_texts(relations: RelationSet, index: Tensor, *, lower: bool) -> list[str]:
    """The text of each instance with ``[k`` before and ``k]`` after each mention of entity k."""
    first, last = relations.span_ptr[index].tolist(), relations.span_ptr[index + 1].tolist()
    spans = relations.spans.tolist()
    found = []
    for instance, a, b in zip(index.tolist(), first, last, strict=True):
        tokens = relations.tokens(instance)
        tokens = [word.lower() for word in tokens] if lower else tokens
        for _, entity, begin, end in spans[a:b]:
            tokens[begin] = f"[{entity} {tokens[begin]}"
            tokens[end - 1] = f"{tokens[end - 1]} {entity}]"
        found.append(" ".join(tokens))
    return found


def fit_tfidf(
    texts: Sequence[str],
    y: NDArray[np.int64],
    classes: int,
    *,
    min_count: int,
    weights: dict[int, float] | None,
) -> tuple[TfidfLogistic, list[str]]:
    """Words and pairs of neighbouring words, and scikit-learn's logistic regression with C = 10.

    Raises:
        DataError: No term occurs so often.
    """
    counter = _counter(None, min_count)
    try:
        counts = counter.fit_transform(texts)
    except ValueError as error:
        raise DataError(f"no term occurs in {min_count} texts ({error}); lower min_count") from error
    weigh = TfidfTransformer(sublinear_tf=True).fit(counts)
    linear = LogisticRegression(C=10, max_iter=1000, class_weight=weights).fit(weigh.transform(counts), y)
    module = TfidfLogistic(counts.shape[1], classes)
    weight, bias = torch.from_numpy(linear.coef_), torch.from_numpy(linear.intercept_)
    if len(weight) == 1:  # of two classes scikit-learn keeps the difference
        weight, bias = torch.cat([0 * weight, weight]), torch.cat([0 * bias, bias])
    with torch.no_grad():
        module.idf.copy_(torch.from_numpy(weigh.idf_))
        seen = torch.from_numpy(linear.classes_)
        module.linear.weight.zero_()[seen] = weight
        module.linear.bias.fill_(-1e3)[seen] = bias  # a class without an instance in training is never said
    return module.eval(), counter.get_feature_names_out().tolist()


def _counter(terms: Sequence[str] | None, min_count: int = 1) -> CountVectorizer:
    return CountVectorizer(
        ngram_range=(1, 2), token_pattern=r"\S+", lowercase=False, vocabulary=terms, min_df=min_count
    )
