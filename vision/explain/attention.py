"""Attention over the picture, layer by layer, and rolled out through all layers.

The kernel layer shows what every attention is called with; the probabilities are computed again by its
reference. Counted is attention among the positions of a whole map, in raster order, perhaps after a class
token: attention among channels, inside patches, or in windows that were cut beforehand is left out, and so
is what mixes positions without a softmax of the kernel layer (convolutions, VOLO's outlook, the positional
part of ConViT's gated attention).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from graphrec.errors import ConfigError
from graphrec.kernels.attention import reference
from graphrec.kernels.attention.watching import Call, watched_attention
from graphrec.kernels.patterns import Full

from ..backbone import Backbone

Size = tuple[int, int]


@dataclass(frozen=True)
class AttentionMap:
    """Who looks where in one layer.

    Attributes:
        name: Of the module.
        weights: (B, Lq, L), the mean over heads: rows are queries and sum to one, columns are the positions
            of the map (of pooled keys, each position has its share). With a class token it comes first, in
            columns and, unless it is the only query, in rows.
        grid: Height and width of the map.
        token: Whether there is a class token.
    """

    name: str
    weights: Tensor
    grid: Size
    token: bool

    def received(self) -> Tensor:
        """How much each place is looked at by the class token, or where there is none by all: (B, h, w)."""
        rows = self.weights[:, :1] if self.token else self.weights
        return rows.mean(1)[:, int(self.token) :].unflatten(1, self.grid)


def attention_maps(model: Backbone, images: Tensor) -> list[AttentionMap]:
    """The attention of every layer over the picture, in the order in which they ran.

    Args:
        model: In whatever mode; it is run in evaluation mode.
        images: (B, C, H, W), normalised.

    Returns:
        One entry a layer; none for a model without attention over a map.
    """
    layers: list[tuple[str, list[tuple[Tensor, int]], Size, bool]] = []
    grids = _grids(model, images)

    with _named_calls(model) as current:

        def watch(call: Call) -> None:
            path = current[-1] if current else ""
            if getattr(model.get_submodule(path), "mixes_channels", False):
                return
            found = _over_map(call, len(images), grids)
            if found is None:
                return
            (weights, grid, token), name = found, _layer_name(path)
            if layers and layers[-1][0] == name and layers[-1][2:] == (grid, token):
                layers[-1][1].append((weights, call.q.shape[1]))
            else:
                layers.append((name, [(weights, call.q.shape[1])], grid, token))

        with watched_attention(watch), torch.no_grad(), _evaluating(model):
            model(images)
    return [AttentionMap(name, _mean(parts), grid, token) for name, parts, grid, token in layers]


def attention_rollout(maps: list[AttentionMap]) -> Tensor:
    """Attention through all layers: how much of each place reaches the output (Abnar & Zuidema, 2020,
    arXiv 2005.00928).

    Each layer mixes with ``(A + 1) / 2``, for the residual; layers are multiplied. Where the map gets
    smaller, a place of the smaller one is the mean of the places that it covers. The output is the class
    token, or the mean over the last map.

    Args:
        maps: What `attention_maps` returns.

    Returns:
        (B, h, w) at the resolution of the first layer; each sums to one.

    Raises:
        ConfigError: There are no maps, or they are those of branches that run side by side.
    """
    if not maps:
        raise ConfigError("model: no layer has attention over the picture; use its class activation")
    if not is_chain(maps):
        raise ConfigError(
            "model: has branches of several resolutions; draw one layer, or its class activation"
        )
    batch = len(maps[0].weights)
    device = maps[0].weights.device
    grid, token = maps[-1].grid, any(one.token for one in maps)
    # From the output back to the picture: a row times one layer after the other, never a square product.
    reach = torch.full((batch, grid[0] * grid[1]), 1.0 / (grid[0] * grid[1]), device=device)
    on_token = torch.zeros(batch, device=device)
    if token and maps[-1].token:
        reach, on_token = torch.zeros_like(reach), torch.ones_like(on_token)
    for one in reversed(maps):
        reach, grid = _spread(reach, grid, one.grid), one.grid
        reach, on_token = _back(one, reach, on_token)
    whole = reach / reach.sum(1, keepdim=True)
    return whole.unflatten(1, grid)


def is_chain(maps: list[AttentionMap]) -> bool:
    """Whether each layer works on what the one before it made: maps never get finer."""
    sizes = [one.grid[0] * one.grid[1] for one in maps]
    return sizes == sorted(sizes, reverse=True)


def _back(one: AttentionMap, reach: Tensor, on_token: Tensor) -> tuple[Tensor, Tensor]:
    """How the output depends on what goes into a layer, given how it depends on what comes out."""
    if not one.token:
        return (reach + torch.einsum("bq,bqk->bk", reach, one.weights)) / 2, on_token
    before = torch.cat([on_token[:, None], reach], 1)
    queries = one.weights.shape[1]  # the class token alone, or all
    looked = torch.einsum("bq,bqk->bk", before[:, :queries], one.weights)
    after = before.clone()
    after[:, :queries] /= 2
    after = after + looked / 2
    return after[:, 1:], after[:, 0]


def _spread(reach: Tensor, grid: Size, finer: Size) -> Tensor:
    """Shares of places of a map as shares of those of a finer one."""
    if grid == finer:
        return reach
    fine = _coarser_of(finer, grid).to(reach.device)
    return reach @ fine


def _coarser_of(fine: Size, coarse: Size) -> Tensor:
    """(coarse places, fine places): the mean of what each covers; rows sum to one."""
    count = fine[0] * fine[1]
    each = torch.eye(count).view(count, 1, *fine)
    return adaptive_avg_pool2d(each, coarse).flatten(1).T


def _grids(model: Backbone, images: Tensor) -> list[Size]:
    """Sizes of the maps after the stages."""
    with torch.no_grad(), _evaluating(model):
        maps = model.forward_intermediates(images[:1], intermediates_only=True)
    return list(dict.fromkeys((one.shape[2], one.shape[3]) for one in maps))


def _over_map(call: Call, batch: int, grids: list[Size]) -> tuple[Tensor, Size, bool] | None:
    """Mean over heads of a call's probabilities, its map, whether it has a class token; None if no map."""
    queries = call.q.shape[2]
    if call.q.shape[0] != batch:
        return None
    for grid in grids:
        size = grid[0] * grid[1]
        keys = [one.k.shape[2] for one in call.sources]
        for token in (False, True):
            alone = queries == 1 and token and keys == [size + 1]
            if queries == size + token or alone:
                columns = [_key_grid(length - token, grid) for length in keys]
                if all(one is not None for one in columns):
                    return _weights(call, columns, grid, token), grid, token  # type: ignore[arg-type]
    return None


def _key_grid(length: int, grid: Size) -> Size | None:
    """The map of pooled keys: the grid divided by a whole number, rounded either way."""
    for by in range(1, max(grid) + 1):
        for up in (False, True):
            size = tuple(max(1, -(-side // by) if up else side // by) for side in grid)
            if size[0] * size[1] == length:
                return size[0], size[1]
    return None


def _weights(call: Call, columns: list[Size], grid: Size, token: bool) -> Tensor:
    """(B, Lq, token + h * w), rows summing to one."""
    parts, _ = reference.probabilities(call.q, call.sources, call.scale)
    total: Tensor | float = 0.0
    for part, one, size in zip(parts, call.sources, columns, strict=True):
        if one.times is not None:
            part = part * reference.dense(one.times, call.q, one)
        if one.plus is not None:
            hidden = ~(one.pattern or Full()).mask(part.shape[2], part.shape[3], device=part.device)
            part = part + reference.dense(one.plus, call.q, one).masked_fill(hidden, 0)
        mean = part.float().clamp(min=0).mean(1)
        total = total + _unpooled(mean, size, grid, token)
    assert isinstance(total, Tensor)
    return total / total.sum(-1, keepdim=True).clamp(min=1e-12)


def _unpooled(weights: Tensor, size: Size, grid: Size, token: bool) -> Tensor:
    """Weights on pooled keys as weights on the places of the map, in equal shares."""
    if size == grid:
        return weights
    first, rest = weights[..., : int(token)], weights[..., int(token) :]
    shares = interpolate(rest.unflatten(-1, size), grid, mode="nearest")
    shares = shares * (rest.sum(-1) / shares.sum((-2, -1)).clamp(min=1e-12))[..., None, None]
    return torch.cat([first, shares.flatten(2)], -1)


def _mean(parts: list[tuple[Tensor, int]]) -> Tensor:
    """The mean over calls of one layer, by their heads."""
    heads = sum(count for _, count in parts)
    return torch.stack([weights * (count / heads) for weights, count in parts]).sum(0)


def _layer_name(path: str) -> str:
    """Members of a list inside a block share its heads; blocks in a list are layers of their own."""
    parts = path.split(".")
    if len(parts) > 1 and parts[-1].isdigit() and parts[-2].startswith("attn"):
        return ".".join(parts[:-1])
    return path


@contextmanager
def _named_calls(model: nn.Module) -> Iterator[list[str]]:
    """A list whose last entry is the path of the module that runs."""
    current: list[str] = []

    def enter(path: str) -> Callable[..., None]:
        return lambda *_: current.append(path)

    def leave(*_: object) -> None:
        current.pop()

    with ExitStack() as stack:
        for path, module in model.named_modules():
            stack.callback(module.register_forward_pre_hook(enter(path)).remove)
            stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        yield current


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and what there was before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
