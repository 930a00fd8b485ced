"""Augmentation: which random changes training makes; by timm and torchvision, on a picture or a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import AugmentOp, posterize
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from graphrec.errors import ConfigError

from .preprocess import Preprocess

CROPS = ("resized", "pad", "none")


@dataclass(frozen=True)
class Augment:
    """Random changes of training pictures.

    Attributes:
        crop: "resized" cuts a random part and scales it to the input's size (Inception's crop); "pad" scales
            the picture to the input's size, pads it and cuts at random, as is usual for small pictures;
            "none" crops as evaluation does.
        scale: Least and largest part of the area for "resized".
        ratio: Least and largest width over height for "resized".
        pad: Pixels on each side for "pad".
        hflip: Probability of a mirror image.
        vflip: Probability of one upside down.
        jitter: Strength of random brightness, contrast and saturation; not used beside a policy, as in timm.
        policy: timm's name of a policy such as ``"rand-m9-mstd0.5-inc1"``, ``"augmix-m3-w3"`` or
            ``"original"``.
        erase: Probability of erasing a rectangle.
        mixup: Alpha of mixup, 0 for none.
        cutmix: Alpha of CutMix, 0 for none; with both, each batch takes one of them at random.

    Raises:
        ConfigError: A value is out of range or has no such name.
    """

    crop: str = "resized"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    pad: int = 4
    hflip: float = 0.5
    vflip: float = 0.0
    jitter: float = 0.0
    policy: str | None = None
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name in ("hflip", "vflip", "erase", "pad", "jitter", "mixup", "cutmix"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise ConfigError(f"{name}={value!r}: must be a number")
        if self.crop not in CROPS:
            raise ConfigError(f"crop={self.crop!r}: must be one of {', '.join(CROPS)}")
        for name, top in (("scale", 1.0), ("ratio", float("inf"))):
            pair = getattr(self, name)
            given = isinstance(pair, list | tuple) and len(pair) == 2
            if not (given and all(isinstance(v, Real) for v in pair) and 0 < pair[0] <= pair[1] <= top):
                raise ConfigError(f"{name}={pair!r}: must be two positive numbers, the lesser first")
            object.__setattr__(self, name, tuple(pair))
        for name in ("hflip", "vflip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be a probability")
        for name in ("pad", "jitter", "mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)}: must not be negative")
        if self.policy is not None:
            _check_policy(self.policy)

    @classmethod
    def of_name(cls, name: str) -> Augment:
        """A recipe: "imagenet" (timm's for large sets), "small" (for pictures of 32 pixels), "none".

        Raises:
            ConfigError: There is no such recipe.
        """
        recipes = {
            "imagenet": cls(policy="rand-m9-mstd0.5-inc1", erase=0.25, mixup=0.8, cutmix=1.0),
            "small": cls(crop="pad"),
            "none": cls(crop="none", hflip=0.0),
        }
        if name not in recipes:
            raise ConfigError(f"augment={name!r}: must be one of {', '.join(recipes)}, or an Augment")
        return recipes[name]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form; `from_dict` reads it back."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Augment:
        """The inverse of `to_dict`.

        Raises:
            ConfigError: A key names nothing, or a value is out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in data:
            if key not in known:
                raise ConfigError(f"augment: has no {key!r}; it has {', '.join(known)}")
        return cls(**data)

    @property
    def mixes(self) -> bool:
        """Whether batches have mixed labels."""
        return self.mixup > 0 or self.cutmix > 0

    def per_image(self, prep: Preprocess) -> Callable[[Image.Image], Tensor]:
        """The changes of one PIL image, up to uint8 (C, H, W)."""
        crop, colour, end = self._timm(prep)
        if self.crop == "resized":
            return v2.Compose([crop, colour, end])
        whole = self.base(prep).geometry.transforms[:-1]  # without the step to a tensor: policies want PIL
        cut = [v2.RandomCrop(prep.size, padding=self.pad)] if self.crop == "pad" and self.pad else []
        flips = [v2.RandomHorizontalFlip(self.hflip), v2.RandomVerticalFlip(self.vflip)]
        return v2.Compose([*whole, *cut, *flips, colour, end])

    def base(self, prep: Preprocess) -> Preprocess:
        """How the whole picture is scaled before it is cut: padding takes the place of a tighter crop."""
        return prep.replace(crop_pct=1.0) if self.crop == "pad" else prep

    def _timm(self, prep: Preprocess) -> Any:
        """timm's three parts: crop and flips; policy or jitter; the step to a tensor."""
        # Pillow turns and shears without Lanczos' filter.
        mode = "bicubic" if self.policy and prep.interpolation == "lanczos" else prep.interpolation
        parts = create_transform(
            input_size=(prep.channels, *prep.size),
            is_training=True,
            scale=self.scale,
            ratio=self.ratio,
            hflip=self.hflip,
            vflip=self.vflip,
            color_jitter=self.jitter or None,  # type: ignore[arg-type]  # None, as for timm's own script
            auto_augment=self.policy,
            interpolation=mode,
            mean=prep.mean,
            std=prep.std,
            normalize=False,
            separate=True,
        )
        for step in parts[1].transforms:
            _mend(step)
        return parts

    def colour(self, prep: Preprocess) -> Any:
        """The policy or jitter alone, of one PIL image."""
        return self._timm(prep)[1]

    def erased(self, images: Tensor) -> Tensor:
        """Normalised pictures (B, C, H, W), some with a rectangle of noise, in place."""
        if not self.erase:
            return images
        return RandomErasing(self.erase, mode="pixel", device=images.device)(images)

    def mixed(
        self, images: Tensor, labels: Tensor, classes: int, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Pictures (B, C, H, W) mixed in pairs, their targets (B, classes) and their weights (B,).

        A row of targets sums to 1: of each picture its label by its share of the pair times its weight.
        """
        choices: list[Any] = []
        if self.mixup:
            choices.append(v2.MixUp(alpha=self.mixup, num_classes=classes))
        if self.cutmix:
            choices.append(v2.CutMix(alpha=self.cutmix, num_classes=classes))
        if weights is None:
            images, targets = v2.RandomChoice(choices)(images, labels)
            return images, targets.to(images.dtype), None
        shares = functional.one_hot(labels, classes) * weights[:, None]
        images, targets = v2.RandomChoice(choices)(images, shares)
        weights = targets.sum(1)
        return images, targets / weights[:, None], weights


def _mend(policy: Any) -> None:
    """Have a policy keep at least one bit: at full strength timm's keeps none, which Pillow 13 refuses."""
    if isinstance(policy, AugmentOp):
        if policy.aug_fn is posterize:
            policy.aug_fn = _posterize
    elif isinstance(policy, list | tuple):
        for one in policy:
            _mend(one)
    else:
        _mend(list(getattr(policy, "ops", None) or getattr(policy, "policy", None) or ()))


def _posterize(image: Image.Image, bits: int, **options: Any) -> Image.Image:
    return posterize(image, max(1, bits), **options)


def _check_policy(policy: str) -> None:
    """Have timm make the policy once, so that a wrong name is told before any training."""
    known = ("rand-", "augmix", "original", "v0", "3a")
    try:
        if not policy.startswith(known):
            raise ValueError(policy)
        create_transform(64, is_training=True, auto_augment=policy)
    except (AssertionError, AttributeError, ValueError, KeyError, IndexError) as error:
        raise ConfigError(
            f"policy={policy!r}: timm has no such policy; say for example 'rand-m9-mstd0.5-inc1', "
            "'augmix-m3-w3', 'original' or '3a'"
        ) from error
