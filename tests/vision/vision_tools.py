"""Random weights that show a broken part, and comparison with peers on numbers.

Weights are drawn per official key name, so the official code, timm and we get the same ones without a file of
weights: a recording of some kB holds only images and what the official code made of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from graphrec import vision
from graphrec.vision import Backbone

RECORDED = Path(__file__).parent / "recorded"
TOLERANCE = 1e-4
DIRECTIONS = 3
IMAGE_STEP = 17
MAP_STEP = 61


def random_value(name: str, value: Tensor, seed: int = 0) -> Tensor:
    """What stands under an official key: nothing is zero, one or tiny, whatever the initial values were.

    Matrices keep the size of what passes through them, scales lie around 1, biases and layer scales around 0;
    whole numbers stay.
    """
    if not value.is_floating_point():
        return value
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) + seed)
    noise = torch.randn(value.shape, generator=generator)
    if name.endswith("running_var"):
        new = 0.5 + noise.abs()
    elif value.dim() > 1:
        new = noise * (value[0].numel() ** -0.5)
    else:
        new = 0.1 * noise + (1.0 if name.endswith("weight") else 0.0)
    return new.to(value.dtype)


def random_state(state: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Random values for a state with official names."""
    return {name: random_value(name, value, seed) for name, value in state.items()}


def randomized(model: Backbone, seed: int = 0) -> Backbone:
    """The model, in evaluation mode, with random values drawn by its official key names."""
    vision.load_weights(model, random_state(vision.official_state(model), seed))
    return model.eval()


def image(model: Backbone, size: tuple[int, int] | None = None, batch: int = 2) -> Tensor:
    """Random images that fit a model."""
    return torch.randn(
        batch, model.in_chans, *(size or model.img_size), generator=torch.Generator().manual_seed(1)
    )


def odd_size(model: Backbone) -> tuple[int, int]:
    """Another size than the model's: no square, and odd where the model takes that."""
    step = model.multiple * (1 if model.multiple > 1 else 5)
    return model.img_size[0] + step, model.img_size[1] + 2 * step


def relative(found: Tensor, wanted: Tensor, floor: float = 1e-12) -> float:
    """Norm of the difference over the norm of what is wanted."""
    assert found.shape == wanted.shape, f"{tuple(found.shape)} instead of {tuple(wanted.shape)}"
    wanted = wanted.detach().double()
    return float((found.detach().double() - wanted).norm() / max(float(wanted.norm()), floor))


def probe(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor], Tensor, dict[str, Tensor]]:
    """Logits, feature maps, and the gradients of image and parameters of a fixed mix of both."""
    x = x.clone().requires_grad_()
    maps = model.forward_intermediates(x, intermediates_only=True)
    logits = model(x)
    generator = torch.Generator().manual_seed(2)
    total = sum((one * torch.randn(one.shape, generator=generator).to(one)).mean() for one in [logits, *maps])
    parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
    grads = torch.autograd.grad(total, [x, *parameters.values()], allow_unused=True)
    named = {name: one for name, one in zip(parameters, grads[1:], strict=True) if one is not None}
    return logits, maps, grads[0], named


def assert_equals_peer(
    model: Backbone,
    peer: nn.Module,
    to_peer: Callable[[dict[str, Tensor]], Mapping[str, Tensor]],
    x: Tensor,
) -> None:
    """Logits, pyramid and gradients of our model equal those of a peer with the same random weights.

    Args:
        model: Ours; gets random weights.
        peer: Gets the same, strictly.
        to_peer: From a state with official names to one with the peer's, e.g. timm's
            ``checkpoint_filter_fn``.
        x: Images for both.
    """
    randomized(model)
    learned = {name for name, _ in peer.named_parameters()}
    given = to_peer(vision.official_state(model))
    missing = set(peer.state_dict()) - set(given)
    assert not missing & learned, f"the official names leave out {sorted(missing & learned)}"
    kept = {name: peer.state_dict()[name] for name in missing}
    peer.load_state_dict({**kept, **given}, assign=True)  # weights lie in memory once
    ours, theirs = probe(model, x), probe(peer.eval(), x)
    assert relative(ours[0], theirs[0]) < TOLERANCE, "logits"
    assert len(ours[1]) == len(theirs[1])
    for number, (mine, other) in enumerate(zip(ours[1], theirs[1], strict=True)):
        assert relative(mine, other) < TOLERANCE, f"feature map {number}"
    assert relative(ours[2], theirs[2]) < TOLERANCE, "gradient of the image"
    mine = to_peer(model.keys.to_official(ours[3]))
    scale = max(float(one.norm()) for one in theirs[3].values())
    for name, wanted in theirs[3].items():
        assert relative(mine[name], wanted, 1e-3 * scale) < TOLERANCE, f"gradient of {name}"


def assert_equals_timm(
    model: Backbone,
    peer: nn.Module,
    sizes: list[tuple[int, int]],
    to_peer: Callable[[dict[str, Tensor], nn.Module], Mapping[str, Tensor]] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """:func:`assert_equals_peer` at several sizes, with timm's own converter of official checkpoints."""
    convert = (lambda state: to_peer(state, peer)) if to_peer else (lambda state: state)
    model, peer = model.to(dtype), peer.to(dtype)
    for size in sizes:
        assert_equals_peer(model, peer, convert, image(model, size).to(dtype))


def mixed_gradients(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Logits, and the gradients of image and parameters of their sum weighted with fixed random numbers.

    A parameter that the logits do not depend on is left out.
    """
    x = x.clone().requires_grad_()
    logits = model(x)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2)).to(logits)
    parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
    grads = torch.autograd.grad((logits * weights).sum(), [x, *parameters.values()], allow_unused=True)
    named = {name: one for name, one in zip(parameters, grads[1:], strict=True) if one is not None}
    return logits.detach(), grads[0], named


def gradient_summary(grads: Mapping[str, Tensor]) -> Tensor:
    """Norm of each gradient, and its products with random directions drawn by its official name.

    A difference of norm d shows as some d in each product, however large the gradient is.

    Returns:
        (parameters in order of names, 1 + ``DIRECTIONS``) in float64.
    """
    rows = []
    for name in sorted(grads):
        grad = grads[name].detach().double().flatten()
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        directions = torch.randn(DIRECTIONS, grad.numel(), generator=generator).double()
        rows.append(torch.cat([grad.norm()[None], directions @ grad]))
    return torch.stack(rows)


def assert_equal_gradients(
    model: Backbone, found: Mapping[str, Tensor], number: str, names: list[str], dtype: torch.dtype
) -> None:
    """Gradients of a recorded image and of all parameters equal the recorded ones.

    Differences count relative to the parameter's gradient, or to a thousandth of the largest gradient in
    float32 where that is more: softmax cancels the gradients of some biases.
    """
    _, of_image, grads = mixed_gradients(model.to(dtype), found[f"image.{number}"].to(dtype))
    model.float()
    apart = relative(of_image.flatten()[::IMAGE_STEP], found[f"image_gradient.{number}"])
    assert apart < TOLERANCE, f"gradient of image {number}: {apart:.1e}"
    official = model.keys.to_official(grads)
    official = {name: one for name, one in official.items() if one.is_floating_point()}
    assert sorted(official) == names
    wanted = found[f"gradient.{number}"]
    floor = (1e-3 if dtype == torch.float32 else 1e-9) * float(wanted[:, 0].max())
    errors = (gradient_summary(official) - wanted).abs().amax(1) / wanted[:, 0].clamp(min=floor)
    worst = int(errors.argmax())
    assert errors[worst] < TOLERANCE, f"gradient of {names[worst]} for image {number}: {errors[worst]:.1e}"


def assert_equals_recording(model: Backbone, name: str, gradients_in: torch.dtype = torch.float32) -> None:
    """Logits, feature maps and gradients equal what official code made of the same weights and images.

    ``recorded/<name>.safetensors`` holds ``image.<n>``, ``logits.<n>``, ``map.<n>.<stage>`` or every
    ``MAP_STEP``-th number of it as ``map_sample.<n>.<stage>``, the :func:`gradient_summary` of the logits'
    :func:`mixed_gradients` in float64 as ``gradient.<n>``, and every ``IMAGE_STEP``-th number of the image's
    gradient as ``image_gradient.<n>``; its metadata say which repository, commit, options and seed it is
    from, and name the ``parameters``. ``record_gradients.py`` adds the gradients. Ours are computed in
    ``gradients_in``, logits and maps in float32.
    """
    with safe_open(RECORDED / f"{name}.safetensors", "pt") as file:
        about = file.metadata()
        found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no mapping
    assert {"repository", "commit", "options", "seed"} <= set(about)
    randomized(model, int(about["seed"]))
    numbers = sorted(key.removeprefix("image.") for key in found if key.startswith("image."))
    assert numbers
    for number in numbers:
        x = found[f"image.{number}"]
        with torch.no_grad():
            logits, maps = model(x), model.forward_intermediates(x, intermediates_only=True)
        assert relative(logits, found[f"logits.{number}"]) < TOLERANCE, f"logits {number}"
        for stage, made in enumerate(maps):
            wanted = found.get(f"map.{number}.{stage}")
            if wanted is None:
                made, wanted = made.flatten()[::MAP_STEP], found[f"map_sample.{number}.{stage}"]
            assert relative(made, wanted) < TOLERANCE, f"feature map {stage} of {number}"
        assert_equal_gradients(model, found, number, about["parameters"].split(), gradients_in)


def assert_official_keys(model: Backbone) -> None:
    """Official names lead back to ours, with the same values, and messages use the official ones."""
    randomized(model, seed=3)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    official = vision.official_state(model)
    back = model.keys.to_ours(official)
    assert back.keys() == before.keys()
    assert all(torch.equal(back[name], before[name]) for name in before)
    for name in before:
        assert set(model.keys.official_name(name).split(", ")) <= official.keys(), name


def kept_bytes(out: torch.Tensor) -> int:
    """Bytes of distinct storages that the graph behind a tensor keeps."""
    storages, nodes = {}, [out.grad_fn]
    while nodes:
        node = nodes.pop()
        kept = [getattr(node, name) for name in dir(node) if name.startswith("_saved")]
        for one in [*kept, *getattr(node, "saved_tensors", ())]:
            if isinstance(one, torch.Tensor):
                storages[one.untyped_storage().data_ptr()] = one.untyped_storage()
        nodes += [before for before, _ in node.next_functions if before is not None]
    return sum(storage.nbytes() for storage in storages.values())
