"""Official checkpoints: read from a path, URL or the Hugging Face hub, mapped, checked key by key, loaded."""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import re
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import safetensors.torch
import torch
from safetensors import SafetensorError
from timm.models import adapt_input_conv
from torch import Tensor

from graphrec.errors import ConfigError, RunError

from .backbone import Backbone
from .layers.fuse import is_fused

_log = logging.getLogger(__name__)
_WRAPPERS = ("state_dict_ema", "model_ema", "model", "state_dict", "model_state_dict")
"""Where training scripts put the weights in what they save. Averages go first, as timm takes them: they are
what such scripts choose the best epoch by."""
_WRAPPED = re.compile(r"^(?:module\.|_orig_mod\.)+")
"""What training in parallel and compiled models put before every name."""
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def read_checkpoint(source: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by the names in it.

    Args:
        source: A path, a URL, or a repository ``owner/name`` of the Hugging Face hub (``owner/name/file`` for
            a file other than model.safetensors or pytorch_model.bin). Files other than safetensors are read
            with ``weights_only=True``. If they have a moving average of the weights as well, that is taken.

    Raises:
        RunError: The file is not there, holds objects that could run code, or holds no weights.
    """
    path = _local(str(source))
    try:
        if path.suffix == ".safetensors":
            return _plain_names(safetensors.torch.load_file(path))
        with torch.serialization.safe_globals([argparse.Namespace]):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RunError(
            f"{path}: is no file of plain tensors, and other objects are not read because they could run "
            "code; save its state dict alone, or as safetensors"
        ) from error
    except Exception as error:  # torch's reader raises whatever it stumbles over in another kind of file
        plain = isinstance(error, OSError | RuntimeError | SafetensorError) and str(error)
        told = f" ({str(error).splitlines()[0]})" if plain else ""
        raise RunError(f"{path}: is no readable checkpoint{told}") from error
    return _tensors(found, path)


def _local(source: str) -> Path:
    """The file of a source, downloaded if need be."""
    if source.startswith(("http://", "https://")):
        return _downloaded(source)
    is_url = source.startswith("file://")
    path = Path(url2pathname(urlsplit(source).path) if is_url else source).expanduser()
    if path.is_file():
        return path
    if is_url:
        raise RunError(f"{source}: there is no such file")
    parts = source.removeprefix("hf-hub:").removeprefix("hf_hub:").split("/")
    looks_local = path.suffix in (".pth", ".pt", ".bin", ".tar", ".safetensors") and len(parts) < 3
    if looks_local or len(parts) not in (2, 3) or not all(parts):
        raise RunError(f"{source}: is no file, URL or repository of the Hugging Face hub")
    return _from_hub("/".join(parts[:2]), parts[2:])


def _downloaded(url: str) -> Path:
    """The file of a URL, from torch's folder of checkpoints if it was downloaded before."""
    from timm.models._hub import download_cached_file

    try:
        return Path(download_cached_file(url))
    except (OSError, ValueError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunError(f"{url}: cannot be downloaded ({reason})") from error


def _from_hub(repository: str, file: list[str]) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        for name in file or _HUB_FILES:
            try:
                return Path(hf_hub_download(repository, name))
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError:
                continue
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise RunError(f"{repository}: cannot be read from the hub, and is no file ({error})") from error
    raise RunError(f"{repository}: the hub's repository has none of {', '.join(file or _HUB_FILES)}")


def _tensors(found: Any, path: Path) -> dict[str, Tensor]:
    """The mapping of names to tensors inside of what a training script saved."""
    while isinstance(found, Mapping) and not any(isinstance(one, Tensor) for one in found.values()):
        inner = [found[name] for name in _WRAPPERS if isinstance(found.get(name), Mapping) and found[name]]
        if not inner:
            break
        found = inner[0]
    if not isinstance(found, Mapping) or not any(isinstance(one, Tensor) for one in found.values()):
        raise RunError(f"{path}: holds no state dict, alone or under {', '.join(_WRAPPERS)}")
    return _plain_names({name: one for name, one in found.items() if isinstance(one, Tensor)})


def _plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors without what wrappers put before their names."""
    return {_WRAPPED.sub("", name): one for name, one in state.items()}


def load_weights(
    model: Backbone, source: str | os.PathLike[str] | Mapping[str, Tensor], *, fresh_head: bool = False
) -> None:
    """Load an official checkpoint, or one with our own names, into a model.

    Every key must be there with its shape. Position and bias tables of another size are resized as the
    official code does it; the first convolution adapts to the model's number of channels.

    Args:
        model: A model of the variant that the checkpoint is of.
        source: As for :func:`read_checkpoint`, or the tensors themselves.
        fresh_head: Leave the classifier as it is when the checkpoint's has another number of classes.

    Raises:
        RunError: Names the keys that are missing, left over or of another shape.
    """
    state = dict(source) if isinstance(source, Mapping) else read_checkpoint(source)
    wanted = model.state_dict()
    if not state.keys() <= wanted.keys() or not wanted.keys() <= state.keys():
        state = model.keys.to_ours(state)
    state = {name: _fitted(model, name, value, wanted) for name, value in state.items()}
    label = "the checkpoint" if isinstance(source, Mapping) else str(source)
    if fresh_head:
        state = _without_other_head(model, state, wanted)
    _check(model, state, wanted, label)
    model.load_state_dict({**wanted, **state})


def _fitted(model: Backbone, name: str, value: Tensor, wanted: Mapping[str, Tensor]) -> Tensor:
    """A tensor resized where the system knows how, and the first convolution adapted."""
    target = wanted.get(name)
    if target is None or target.shape == value.shape:
        return value
    resize = model.keys.resize.get(name.split(".")[-1])
    if resize is not None:
        try:
            grid = getattr(model.get_submodule(name.rpartition(".")[0]), "grid", None)
            value = resize(value, target) if grid is None else resize(value, target, grid=grid)
        except RunError:
            return value  # the check of all keys names it
    stem = name.removesuffix(".weight") in model.first_conv.split(",")
    if stem and value.dim() == 4 and value.shape[1] == 3 and value.shape[2:] == target.shape[2:]:
        return adapt_input_conv(target.shape[1], value)
    return value


def _without_other_head(
    model: Backbone, state: dict[str, Tensor], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The model's own classifier in place of one with another number of classes."""
    for prefix in model.classifier.split(","):
        names = [f"{prefix}.weight", f"{prefix}.bias"]
        if any(name in state and (name not in wanted or _differs(state, wanted, name)) for name in names):
            _log.info("%s starts afresh: the checkpoint has another number of classes", prefix)
            state = {key: one for key, one in state.items() if key not in names}
            state |= {name: wanted[name] for name in names if name in wanted}
    return state


def _differs(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], name: str) -> bool:
    return state[name].shape != wanted[name].shape


def _check(model: Backbone, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], label: str) -> None:
    """Raise when names or shapes differ."""
    counts = {name for name in wanted if name.endswith("num_batches_tracked")}  # some checkpoints lack it
    named = model.keys.official_name
    faults = {
        "missing": [named(name) for name in wanted if name not in state and name not in counts],
        "left over": [named(name) for name in state if name not in wanted],
        "of another shape": [
            f"{named(name)} {tuple(one.shape)}, the model has {tuple(wanted[name].shape)}"
            for name, one in state.items()
            if name in wanted and one.shape != wanted[name].shape
        ],
    }
    told = [
        f"{what}: {'; '.join(keys[:3])}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''}"
        for what, keys in faults.items()
        if keys
    ]
    if told:
        raise RunError(
            f"{label}: does not fit {type(model).__name__} of this variant; keys " + ", ".join(told)
        )


def official_state(model: Backbone) -> dict[str, Tensor]:
    """The model's weights by the key names of its official code.

    Raises:
        ConfigError: The model is one that `fuse` made, whose weights the official code has no place for.
    """
    if is_fused(model):
        raise ConfigError(
            "model: is fused for deployment and has no official weights; take the model that it was made from"
        )
    return model.keys.to_official(model.state_dict())


def save_weights(model: Backbone, path: str | os.PathLike[str], *, official: bool = False) -> None:
    """Write the weights as safetensors, by our names or by those of the official code (`official_state`)."""
    state = official_state(model) if official else model.state_dict()
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    safetensors.torch.save_file({name: one.contiguous() for name, one in state.items()}, partial)
    partial.replace(target)
