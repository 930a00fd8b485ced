"""Reading checkpoints and checking them key by key."""

from __future__ import annotations

import argparse
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from math import isqrt
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import interpolate

from graphrec import vision
from graphrec.errors import ConfigError, RunError
from graphrec.vision import Convert, Joined, KeyMap, Rename


@pytest.fixture
def official() -> dict[str, Tensor]:
    """A checkpoint by official names."""
    return vision.official_state(vision.create_model("swin_test"))


@pytest.mark.parametrize("wrap", ["model", "state_dict", None])
def test_reads_what_training_scripts_save(
    official: dict[str, Tensor], tmp_path: Path, wrap: str | None
) -> None:
    prefixed = {f"module.{name}": one for name, one in official.items()}
    found = {wrap: prefixed, "epoch": 3, "args": argparse.Namespace(lr=0.1)} if wrap else prefixed
    torch.save(found, tmp_path / "model.pth")
    model = vision.create_model("swin_test", pretrained=tmp_path / "model.pth")
    assert all(torch.equal(one, official[name]) for name, one in vision.official_state(model).items())


@pytest.mark.parametrize(("average", "plain"), [("state_dict_ema", "state_dict"), ("model_ema", "model")])
def test_a_moving_average_goes_before_what_it_is_of(
    official: dict[str, Tensor], tmp_path: Path, average: str, plain: str
) -> None:
    other = {name: one + 1 for name, one in official.items()}
    torch.save({plain: other, average: official}, tmp_path / "model.pth")
    assert torch.equal(vision.read_checkpoint(tmp_path / "model.pth")["head.bias"], official["head.bias"])
    torch.save({plain: other, average: {}}, tmp_path / "model.pth")
    assert torch.equal(vision.read_checkpoint(tmp_path / "model.pth")["head.bias"], other["head.bias"])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_lose_what_wrappers_put_before_them(
    official: dict[str, Tensor], tmp_path: Path, prefix: str
) -> None:
    wrapped = {prefix + name: one for name, one in official.items()}
    torch.save(wrapped, tmp_path / "model.pth")
    save_file(wrapped, tmp_path / "model.safetensors")
    for file in ("model.pth", "model.safetensors"):
        assert vision.read_checkpoint(tmp_path / file).keys() == official.keys()


def test_urls(official: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(official, tmp_path / "official weights.safetensors")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    handler = partial(SilentHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        for url in (
            f"{address}/official%20weights.safetensors",
            (tmp_path / "official weights.safetensors").as_uri(),
        ):
            model = vision.create_model("swin_test", pretrained=url)
            assert torch.equal(model.norm.bias, official["norm.bias"])
        with pytest.raises(RunError, match=rf"{address}/none\.pth: cannot be downloaded \(HTTP Error 404"):
            vision.read_checkpoint(f"{address}/none.pth")
        server.shutdown()
    with pytest.raises(RunError, match=rf"{address}/other\.pth: cannot be downloaded \(.*refused"):
        vision.read_checkpoint(f"{address}/other.pth")
    with pytest.raises(RunError, match=r"^file:///no/such\.pth: there is no such file"):
        vision.read_checkpoint("file:///no/such.pth")


class SilentHandler(SimpleHTTPRequestHandler):
    """Serves a folder without writing a log."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.parametrize(("source", "told"), [("", "''"), ({"head.bias": 1}, "a dict"), (3, "a int")])
def test_a_source_that_is_none(source: object, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"^pretrained: {told} is not allowed; it is True, False, a path"):
        vision.create_model("swin_test", pretrained=source)  # type: ignore[arg-type]  # on purpose


class Harmful:
    """An object whose unpickling would run code."""

    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("ran",))


def test_objects_are_not_unpickled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": {}, "extra": Harmful()}, tmp_path / "model.pth")
    with pytest.raises(RunError, match=r"could run code"):
        vision.read_checkpoint(tmp_path / "model.pth")
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["none.pth", "broken.pth", "other.pth", "broken.safetensors", "empty.pth", "no/such/place/file"]
)
def test_unusable_sources(tmp_path: Path, name: str) -> None:
    (tmp_path / "broken.pth").write_bytes(b"no checkpoint")
    (tmp_path / "other.pth").write_bytes(b"hello")
    (tmp_path / "broken.safetensors").write_bytes(b"no checkpoint")
    torch.save({"epoch": 1}, tmp_path / "empty.pth")
    with pytest.raises(RunError, match=r"is no |holds no state dict"):
        vision.read_checkpoint(tmp_path / name)


def test_missing_and_surplus_keys_have_official_names(official: dict[str, Tensor]) -> None:
    del official["layers.0.downsample.norm.weight"]
    official["layers.9.blocks.0.norm1.weight"] = torch.zeros(3)
    with pytest.raises(RunError) as caught:
        vision.load_weights(vision.create_model("swin_test"), official)
    assert "missing: layers.0.downsample.norm.weight, left over: layers.9.blocks.0.norm1.weight" in str(
        caught.value
    )


def test_another_shape_is_told_with_both(official: dict[str, Tensor]) -> None:
    official["norm.weight"] = torch.zeros(3)
    with pytest.raises(RunError, match=r"norm.weight \(3,\), the model has \(16,\)"):
        vision.load_weights(vision.create_model("swin_test"), official)


@pytest.mark.parametrize(
    ("name", "options", "table", "mode"),
    [
        ("convit_test", {}, "pos_embed", "bicubic"),
        ("crossvit_test", {}, "branches.0.pos_embed", "bicubic"),
        ("pvt_test", {}, "stages.0.pos_embed", "bilinear"),
        ("pvt_test", {}, "stages.1.pos_embed", "bilinear"),
        ("swin_test", {"absolute_positions": True}, "absolute_pos_embed", "bicubic"),
        ("tnt_test", {}, "outer_pos", "bicubic"),
    ],
)
def test_positions_fit_images_that_are_not_square(
    name: str, options: dict[str, bool], table: str, mode: str
) -> None:
    model = vision.create_model(name, **options)
    height, width = 2 * model.img_size[0], 3 * model.img_size[1]
    wide = vision.create_model(name, img_size=(height, width), **options)
    vision.load_weights(wide, vision.official_state(model))
    old, new = model.get_parameter(table).detach(), wide.get_parameter(table).detach()
    side, first = isqrt(old.shape[1]), old.shape[1] - isqrt(old.shape[1]) ** 2
    grid = old[:, first:].mT.unflatten(2, (side, side))
    wanted = interpolate(grid, size=(2 * side, 3 * side), mode=mode).flatten(2).mT
    torch.testing.assert_close(new, torch.cat([old[:, :first], wanted], 1))
    assert wide(torch.zeros(1, 3, height, width)).isfinite().all()
    with pytest.raises(RunError, match="of another shape"):  # from a grid that is none of a square image
        vision.load_weights(model, vision.official_state(wide))


def test_a_failed_load_leaves_the_model(official: dict[str, Tensor]) -> None:
    model = vision.create_model("swin_test")
    before = {name: one.clone() for name, one in model.state_dict().items()}
    del official["norm.weight"]
    with pytest.raises(RunError):
        vision.load_weights(model, official)
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_a_head_of_other_classes_is_left_fresh_only_where_asked(
    official: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(official, tmp_path / "model.pth")
    model = vision.create_model("swin_test", pretrained=tmp_path / "model.pth", num_classes=5)
    assert torch.equal(model.norm.bias, official["norm.bias"])
    with pytest.raises(RunError, match=r"head.weight \(1000, 16\), the model has \(5, 16\)"):
        vision.load_weights(model, official)


def test_rules() -> None:
    keys = KeyMap(
        (
            Rename("down.{i}.0", "stages.{i+1}.norm"),
            Rename("fc.weight", "fc.weight", Convert(torch.t, torch.t)),
            Joined(("a.{i}.q", "a.{i}.kv"), "a.{i}.qkv", parts=(1, 2)),
            Joined("pair", ("left", "right"), parts=(1, 1), dim=1),
        ),
        drop=("*.index",),
    )
    state = {
        "down.3.0.weight": torch.rand(2),
        "fc.weight": torch.rand(2, 3),
        "a.0.q.weight": torch.rand(2, 5),
        "a.0.kv.weight": torch.rand(4, 5),
        "pair.weight": torch.rand(3, 8),
        "other": torch.rand(1),
        "down.3.0.index": torch.zeros(1),
    }
    ours = keys.to_ours(state)
    assert set(ours) == {
        "stages.4.norm.weight", "fc.weight", "a.0.qkv.weight", "left.weight", "right.weight", "other"
    }  # fmt: skip
    assert ours["fc.weight"].shape == (3, 2)
    assert torch.equal(ours["a.0.qkv.weight"][:2], state["a.0.q.weight"])
    assert torch.equal(ours["right.weight"], state["pair.weight"][:, 4:])
    back = keys.to_official(ours)
    del state["down.3.0.index"]
    assert back.keys() == state.keys()
    assert all(torch.equal(one, state[name]) for name, one in back.items())
    assert keys.official_name("stages.4.norm.weight") == "down.3.0.weight"


def test_rules_that_collide_or_lack_a_part() -> None:
    keys = KeyMap((Rename("a", "c"), Rename("b", "c"), Joined(("q", "k"), "qk", parts=(1, 1))))
    with pytest.raises(RunError, match="two keys of the checkpoint became c"):
        keys.to_ours({"a": torch.zeros(1), "b": torch.zeros(1)})
    with pytest.raises(RunError, match=r"qk: needs 2 tensors of the checkpoint, 1 are there"):
        keys.to_ours({"q": torch.zeros(1)})
