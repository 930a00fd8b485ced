"""The base of every backbone: timm's contract for models, written once.

A backbone is a stem, stages and a head. What flows between them, the *state*, is a tensor laid out as
`layout` says, or whatever else the system needs (two branches, tokens beside a map): then it overrides
`feature_map` and `finish`, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any, ClassVar, Literal

import torch
from timm.layers import to_2tuple
from timm.models import checkpoint
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from graphrec.errors import ConfigError, DataError

from .keys import KeyMap
from .layers.stage import NoHead, Stage
from .options import POOLING, check_value, complaints_of_timm

Layout = Literal["NCHW", "NHWC"]


class Backbone(nn.Module):
    """A classifier whose stages can be used as a feature pyramid.

    A subclass builds, after ``super().__init__``, the modules ``stages`` (a feature map is taken after each)
    and ``head`` (with ``reset``, as timm's heads have it), and overrides `embed` unless a module ``stem``
    makes the first state. ``norm``, where there is one, runs after the last stage.

    Args:
        features: Channels and reduction of the feature map after each stage; where a state has several
            maps, of the first map after each stage, then of the second.
        img_size: Side, or height and width, of the images that the model is made for.
        in_chans: Channels of the images.
        num_classes: Classes; 0 leaves the pooled features.
        global_pool: Pooling of the head, "" for none.
        smallest: Least height and width of an image; the last reduction if None.
        multiple: Height and width of an image must be multiples of it.

    Raises:
        ConfigError: ``img_size`` is one that the model cannot take.
    """

    layout: ClassVar[Layout] = "NCHW"
    """How a state is laid out when it is a tensor."""
    final_layout: ClassVar[Literal["NCHW", "NHWC", "NLC"] | None] = None
    """How `forward_features` lays out what it gives, where not as `layout` says; "NLC" for tokens."""
    first_conv: ClassVar[str] = "stem.0"
    """Module that sees the image; its weights adapt to ``in_chans``. Several are separated by commas."""
    classifier: ClassVar[str] = "head.fc"
    """Module that makes the logits; it is left fresh where ``num_classes`` differs from a checkpoint's."""
    fixed_size: ClassVar[bool] = False
    """Whether parameters depend on ``img_size``, so that forward takes no other."""
    plans_by_size: ClassVar[bool] = False
    """Whether attention is planned for the size of a map. Then a compiled graph is for one size of images, as
    plans need the numbers, and with symbols Dynamo takes several times as long over it."""
    maps_per_stage: ClassVar[int] = 1
    """Feature maps of a state. They are numbered map by map: the first of every stage, then the second."""
    stem_pattern: ClassVar[str] = r"^(?!stages|norm|head)"
    """Pattern of the names of parameters that come before all blocks."""
    no_decay: ClassVar[tuple[str, ...]] = ()
    """Last parts of the names of parameters, beside vectors, that should not decay."""
    keys: KeyMap = KeyMap()
    """From the official checkpoint's key names to ours; an instance may have its own."""

    stem: nn.Module
    stages: nn.ModuleList
    head: Any

    def __init__(
        self,
        *,
        features: Sequence[tuple[int, int]],
        img_size: int | tuple[int, int],
        in_chans: int,
        num_classes: int,
        global_pool: str = "avg",
        smallest: int | None = None,
        multiple: int = 1,
    ) -> None:
        super().__init__()
        self.img_size: tuple[int, int] = to_2tuple(img_size)
        self.in_chans, self.num_classes, self.global_pool = in_chans, num_classes, global_pool
        depth = len(features) // self.maps_per_stage
        self.feature_info: list[dict[str, Any]] = [
            {"num_chs": channels, "reduction": reduction, "module": f"stages.{number % depth}"}
            for number, (channels, reduction) in enumerate(features)
        ]
        self.num_features = self.head_hidden_size = features[-1][0]
        self.smallest = features[-1][1] if smallest is None else smallest
        self.multiple = multiple
        self.grad_checkpointing, self.pruned = False, False
        self.norm: nn.Module = nn.Identity()
        self._check_size(*self.img_size, what="img_size", error=ConfigError)

    # What a system fills in

    def embed(self, image: Tensor) -> Any:
        """The state before the first stage, from an image (B, in_chans, H, W)."""
        return self.stem(image)

    def feature_map(self, state: Any, number: int) -> Tensor:
        """A feature map (B, C, H', W') of a state; ``number`` is its place in ``feature_info``."""
        return state.permute(0, 3, 1, 2) if self.layout == "NHWC" else state

    def finish(self, state: Any) -> Any:
        """What the head sees, from the state after the last stage."""
        return self.norm(state)

    # timm's contract

    @property
    def output_fmt(self) -> str:
        """How `forward_features` lays out what it gives: "NCHW", "NHWC", or "NLC" for tokens."""
        return self.final_layout or self.layout

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_chans, H, W).

        Raises:
            DataError: Images of another type, number of channels or size than the model takes.
        """
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Any:
        """What `forward_head` takes: the last state, normalised, in `layout`."""
        self._check_image(x)
        state = self.embed(x)
        for stage in self.stages:
            state = self._run(stage, state)
        return self._finished(state)

    def forward_head(self, x: Any, pre_logits: bool = False) -> Tensor:
        """Logits (B, num_classes), or with ``pre_logits`` what the classifier would see."""
        return self.head(x, pre_logits=pre_logits)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Feature maps after the chosen stages; also the final state unless ``intermediates_only``.

        Args:
            x: Images (B, in_chans, H, W).
            indices: The last so many maps, or these maps, by their places in ``feature_info``; all if None.
            norm: Put the final norm on the last stage's map.
            stop_early: Do not run stages behind the last that an index asks for.
            output_fmt: "NCHW", or "NLC" for (B, H' * W', C).
            intermediates_only: Return the list of maps alone.

        Raises:
            ConfigError: There are no such maps, or no such format.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ConfigError(f"output_fmt: {output_fmt!r} is not 'NCHW' or 'NLC'")
        self._check_image(x)
        try:
            take, last = self._taken(indices)
        except AssertionError as error:
            raise ConfigError(f"indices={indices!r}: {error}") from error
        found: dict[int, Tensor] = {}
        state, final = self.embed(x), len(self.stages) - 1
        for number, stage in enumerate(self.stages):
            state = self._run(stage, state)
            shown = self.norm(state) if norm and number == final else state
            found |= {one: self.feature_map(shown, one) for one in take if one % self._depth == number}
            if stop_early and number == last:
                break
        maps = [found[one] for one in sorted(found)]
        if output_fmt == "NLC":
            maps = [one.flatten(2).transpose(1, 2) for one in maps]
        if intermediates_only:
            return maps
        return (self._finished(state) if number == final else state), maps

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last one asked for, and with them norm and head; the indices kept.

        A model without all of its stages gives the last state that it has, as it is.
        """
        take, last = self._taken(indices)
        shorter = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if prune_norm or shorter:
            self.norm = nn.Identity()
        if shorter:
            self.pruned = True
            widths = [int(one["num_chs"]) for one in self.feature_info[last :: self._depth]]
            self.num_features = self.head_hidden_size = sum(widths)
        if prune_head or shorter:
            self.num_classes, self.head = 0, NoHead()
        return take

    def get_classifier(self) -> nn.Module:
        """The module that makes the logits; the identity where there is none."""
        if isinstance(self.head, NoHead):
            return self.head
        return self.get_submodule(self.classifier.split(",")[0])

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier of ``num_classes``, or none for 0; ``global_pool`` as for the constructor.

        Raises:
            ConfigError: ``num_classes`` is no number of classes, or ``global_pool`` no pooling of the head's.
        """
        check_value("num_classes", num_classes)
        with complaints_of_timm("Invalid pool type", "global_pool", POOLING, {"global_pool": global_pool}):
            self.head.reset(num_classes, global_pool)
        self.num_classes = num_classes
        self.global_pool = self.global_pool if global_pool is None else global_pool
        self.head_hidden_size = self.head.num_features

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute blocks again in the backward pass instead of keeping what they computed, wherever gradients
        are wanted: in evaluation mode too, as in timm.
        """
        self.grad_checkpointing = enable
        for module in self.modules():
            if isinstance(module, Stage):
                module.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that an optimiser should not decay (vectors aside)."""
        return {name for name, _ in self.named_parameters() if name.split(".")[-1] in self.no_decay}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that order parameters by depth, for learning rates that fall layer by layer."""
        fine = [
            (r"^stages\.(\d+)\.downsample", (0,)),
            (r"^stages\.(\d+)\.\w+\.(\d+)", None),
            (r"^stages\.(\d+)", None),
            (r"^norm", (99999,)),
        ]
        return {
            "stem": self.stem_pattern,
            "blocks": r"^stages\.(\d+)" if coarse else fine,
        }

    # Shared workings

    def _finished(self, state: Any) -> Any:
        """What `forward_features` gives of the last state."""
        return state if self.pruned else self.finish(state)

    @property
    def _depth(self) -> int:
        """Stages that the model was built with."""
        return len(self.feature_info) // self.maps_per_stage

    def _taken(self, indices: int | Sequence[int] | None) -> tuple[list[int], int]:
        """Places in ``feature_info`` of the chosen maps, and the last stage that they need."""
        there = [one for one in range(len(self.feature_info)) if one % self._depth < len(self.stages)]
        if indices is None or isinstance(indices, int):
            take = [there[one] for one in feature_take_indices(len(there), indices)[0]]
        else:
            take = feature_take_indices(len(self.feature_info), list(indices))[0]
            if gone := sorted(set(take) - set(there)):
                raise ConfigError(f"indices: {gone} are maps of stages that were pruned")
        return take, max(one % self._depth for one in take)

    def _run(self, stage: nn.Module, state: Any) -> Any:
        """One stage; a `Stage` checkpoints its own blocks."""
        if self.grad_checkpointing and torch.is_grad_enabled() and not isinstance(stage, Stage):
            return checkpoint(stage, state)
        return stage(state)

    def _check_image(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise DataError(f"image: a {type(x).__name__} is no tensor; graphrec.pipelines.images makes one")
        if x.dim() != 4 or x.shape[1] != self.in_chans:
            raise DataError(
                f"image: a tensor of shape {tuple(x.shape)} must be (batch, {self.in_chans}, height, width)"
            )
        if not x.is_floating_point():
            raise DataError(
                f"image: {x.dtype} must be a floating type; divide by 255 and normalise with the mean and "
                "std of the model's default_cfg"
            )
        self._check_type(x)
        height, width = x.shape[-2:]
        if self.plans_by_size and torch.compiler.is_dynamo_compiling():
            height, width = index(height), index(width)
        if self.fixed_size and (height, width) != self.img_size:
            raise DataError(
                f"image: {height}x{width}, but the model was made for "
                f"{self.img_size[0]}x{self.img_size[1]}; create it with img_size=({height}, {width})"
            )
        self._check_size(height, width, what="image", error=DataError)

    def _check_type(self, x: Tensor) -> None:
        """Refuse images of a type that no weight has, and that autocast does not convert."""
        if torch.compiler.is_compiling() or x.dtype == (first := next(self.parameters(), x)).dtype:
            return
        cast = not x.is_meta and torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64
        if not cast and x.dtype not in {one.dtype for one in self.parameters()}:
            raise DataError(f"image: {x.dtype}, but the weights are {first.dtype}; bring it to that")

    def _check_size(self, height: int, width: int, *, what: str, error: type[Exception]) -> None:
        if min(height, width) < self.smallest:
            raise error(
                f"{what}: {height}x{width}, but the model takes at least {self.smallest} pixels a side"
            )
        if height % self.multiple or width % self.multiple:
            raise error(f"{what}: {height}x{width}, but both sides must be multiples of {self.multiple}")
