"""Class activation: which places of a feature map speak for a class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from graphrec.errors import ConfigError

from ..backbone import Backbone
from .attention import _evaluating


def class_activation(
    model: Backbone, images: Tensor, target: Tensor | int | None = None, stage: int | None = None
) -> Tensor:
    """Grad-CAM (Selvaraju et al., 2017, arXiv 1610.02391) on the map after a stage.

    ``relu(sum over channels of mean-over-places(d logit / d map) * map)``; the map is the state after the
    stage as `Backbone.feature_map` shows it.

    Args:
        model: With a classifier; run in evaluation mode.
        images: (B, C, H, W), normalised.
        target: Class of each image (B,), one for all, or None for the most likely.
        stage: After which stage; the last whose map moves the logits if None (where a class token alone is
            classified, the last map does not).

    Returns:
        (B, h, w), the greatest of each image 1; all zero where nothing speaks for the class.

    Raises:
        ConfigError: There is no classifier, no such class or no such stage.
    """
    if model.num_classes < 1:
        raise ConfigError("model: has no classifier; create it with num_classes=...")
    stages = range(len(model.stages))
    if stage is not None and stage not in stages:
        raise ConfigError(f"stage={stage}: the model has stages 0 to {len(model.stages) - 1}")
    states: dict[int, Any] = {}

    def keep(number: int) -> Any:
        return lambda _module, _inputs, output: states.__setitem__(number, output)

    handles = [one.register_forward_hook(keep(number)) for number, one in enumerate(model.stages)]
    try:
        with _evaluating(model), torch.enable_grad():
            # Asking for the images' gradient keeps the way to the states even where all weights are frozen.
            logits = model(images.detach().requires_grad_())
            score = logits.gather(1, _classes(logits, target)[:, None]).sum()
            for number in reversed(stages) if stage is None else [stage]:
                activation, slope = _with_gradient(model, states[number], number, score)
                if stage is not None or bool(slope.any()):
                    break
    finally:
        for handle in handles:
            handle.remove()
    weighed = (slope.mean((2, 3), keepdim=True) * activation).sum(1).relu()
    return weighed / weighed.amax((1, 2), keepdim=True).clamp(min=1e-12)


def _classes(logits: Tensor, target: Tensor | int | None) -> Tensor:
    if target is None:
        return logits.argmax(1)
    found = torch.as_tensor(target, device=logits.device).expand(len(logits))
    if int(found.min()) < 0 or int(found.max()) >= logits.shape[1]:
        raise ConfigError(f"target={found.tolist()}: the model has classes 0 to {logits.shape[1] - 1}")
    return found


def _with_gradient(model: Backbone, state: Any, number: int, score: Tensor) -> tuple[Tensor, Tensor]:
    """The map of a state, and the gradient with respect to it: showing a state only picks and reshapes."""
    leaves, spec = pytree.tree_flatten(state)
    wanted = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
    slopes = torch.autograd.grad(score, wanted, retain_graph=True, allow_unused=True)
    found = iter(
        torch.zeros_like(one) if slope is None else slope for one, slope in zip(wanted, slopes, strict=True)
    )
    filled = [next(found) if isinstance(leaf, Tensor) and leaf.requires_grad else leaf for leaf in leaves]
    slope = pytree.tree_unflatten(filled, spec)
    return model.feature_map(state, number).detach(), model.feature_map(slope, number).detach()
