"""What a model is to see: size, crop, interpolation, mean and deviation, as timm's configurations say it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from graphrec.errors import ConfigError, DataError

from .arrays import as_pixels
from .container import ImageSet
from .decoding import normalise_mode
from .stores import ArrayStore, with_channels

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
CROP_MODES = ("center", "squash", "border")


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the input of a model, without chance; saved with the model.

    Attributes:
        size: Height and width of the input.
        mean: Subtracted from pixels between 0 and 1, one a channel.
        std: Divided by, one a channel.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos".
        crop_pct: Side of the crop over the side of what it is cut from; 1 cuts nothing off a square picture.
        crop_mode: "center" scales the shorter side and cuts the middle out, "squash" scales both sides,
            "border" scales the longer side and fills up with the mean.

    Raises:
        ConfigError: A value is out of range.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        for name in ("size", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.size) != 2 or min(self.size) < 1:
            raise ConfigError(f"size={self.size}: must be height and width, both positive")
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean) or min(self.std) <= 0:
            raise ConfigError(
                f"mean={self.mean}, std={self.std}: must have one or three values each, and deviations be "
                "positive"
            )
        if self.interpolation not in INTERPOLATIONS or self.crop_mode not in CROP_MODES:
            raise ConfigError(
                f"interpolation={self.interpolation!r}, crop_mode={self.crop_mode!r}: must be one of "
                f"{', '.join(INTERPOLATIONS)} and one of {', '.join(CROP_MODES)}"
            )
        if not 0 < self.crop_pct <= 1:
            raise ConfigError(f"crop_pct={self.crop_pct}: must be above 0 and at most 1")

    @classmethod
    def of_model(
        cls, model: Any, img_size: int | tuple[int, int] | None = None, crop_pct: float | None = None
    ) -> Preprocess:
        """What a model's configuration asks for.

        Args:
            model: With ``pretrained_cfg`` or ``default_cfg``, as timm's and graphrec's have; or such a
                mapping.
            img_size: Another size than the configuration's.
            crop_pct: Another crop; small pictures of the very size are best left whole, with 1.

        Raises:
            ConfigError: There is no configuration, or it asks for something else than 1 or 3 channels.
        """
        cfg = model if isinstance(model, Mapping) else getattr(model, "pretrained_cfg", None)
        cfg = cfg or getattr(model, "default_cfg", None)
        if not cfg:
            raise ConfigError(
                f"model: a {type(model).__name__} has no default_cfg; make a Preprocess(size=..., mean=..., "
                "std=...)"
            )
        found = resolve_data_config({}, pretrained_cfg=dict(cfg))
        channels, height, width = found["input_size"]
        channels = getattr(
            model, "in_chans", channels
        )  # a configuration keeps those of the published weights
        if channels not in (1, 3):
            raise ConfigError(f"model: takes {channels} channels; pictures have 1 or 3")
        size = (height, width) if img_size is None else img_size
        return cls(
            size=(size, size) if isinstance(size, int) else size,
            mean=_per_channel(found["mean"], channels),
            std=_per_channel(found["std"], channels),
            interpolation=found["interpolation"],
            crop_pct=found["crop_pct"] if crop_pct is None else crop_pct,
            crop_mode=found["crop_mode"],
        )

    @property
    def channels(self) -> int:
        """Channels of the input, 1 or 3."""
        return len(self.mean)

    def replace(self, **changes: Any) -> Preprocess:
        """The same with other values."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form; `from_dict` reads it back."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocess:
        """The inverse of `to_dict`."""
        return cls(**data)

    @cached_property
    def geometry(self) -> Any:
        """timm's evaluation transform of a PIL image, up to uint8 (C, H, W)."""
        return create_transform(
            input_size=(self.channels, *self.size),
            interpolation=self.interpolation,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
            mean=self.mean,
            std=self.std,
            normalize=False,
        )

    def cut(self, pixels: Tensor) -> Tensor:
        """The same of a whole batch, uint8 (B, C, H, W), by torchvision's kernels for uint8."""
        scaled = self._scaled_size(*pixels.shape[-2:])
        if scaled != tuple(pixels.shape[-2:]):
            mode = InterpolationMode(self.interpolation)
            pixels = transforms.resize(pixels, list(scaled), mode, antialias=True)
        if self.crop_mode == "border":
            high, wide = (max(0, side - now) for side, now in zip(self.size, scaled, strict=True))
            sides = [wide // 2, high // 2, (wide + 1) // 2, (high + 1) // 2]
            pixels = transforms.pad(pixels, sides, fill=[round(255 * value) for value in self.mean])
        return transforms.center_crop(pixels, list(self.size))

    @property
    def scale_size(self) -> tuple[int, int]:
        """Height and width that pictures are scaled to before the crop is cut."""
        return math.floor(self.size[0] / self.crop_pct), math.floor(self.size[1] / self.crop_pct)

    def _scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a picture once it is scaled, rounded as timm and torchvision do."""
        high, wide = self.scale_size
        if self.crop_mode == "squash":
            return high, wide
        if self.crop_mode == "center" and high == wide:
            longer = int(high * max(height, width) / min(height, width))
            return (longer, high) if width <= height else (high, longer)
        least = max if self.crop_mode == "border" else min
        ratio = least(height / high, width / wide)
        return round(height / ratio), round(width / ratio)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (B, C, H, W) to float32, less the mean and over the deviation."""
        mean = torch.tensor(self.mean, device=pixels.device).view(-1, 1, 1).mul_(255)
        std = torch.tensor(self.std, device=pixels.device).view(-1, 1, 1).mul_(255)
        return pixels.to(torch.float32).sub_(mean).div_(std)

    def pixels(self, images: ImageSet, index: Tensor) -> Tensor:
        """Some pictures cut and scaled, uint8 (B, C, H, W)."""
        if isinstance(images.store, ArrayStore):
            return self.cut(images.store.rows(images.rows[index], self.channels))
        return torch.stack([self.geometry(images.pil(i, self.channels)) for i in index.tolist()])

    def __call__(self, images: Any) -> Tensor:
        """Pictures as a model takes them, float32 (B, C, H, W).

        Args:
            images: A PIL image or a list of them, uint8 arrays as `open_images` takes them, one without its
                first dimension, or an `ImageSet`.

        Raises:
            DataError: They are something else.
        """
        if isinstance(images, ImageSet):
            return self.normalise(self.pixels(images, torch.arange(len(images))))
        if isinstance(images, Image.Image):
            images = [images]
        if isinstance(images, list | tuple):
            if not images or not all(isinstance(one, Image.Image) for one in images):
                raise DataError("images: a list must hold PIL images, at least one")
            return self.normalise(
                torch.stack([self.geometry(normalise_mode(one, self.channels)) for one in images])
            )
        if not hasattr(images, "dtype"):
            raise DataError(
                f"images: a {type(images).__name__} is no picture; give PIL images or a uint8 array"
            )
        batch = images[None] if images.ndim == 3 else images
        return self.normalise(self.cut(with_channels(as_pixels(batch, "images"), self.channels)))


def _per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Three values for a model of one channel are averaged."""
    if len(values) == channels:
        return tuple(float(v) for v in values)
    return (float(sum(values) / len(values)),) * channels
