"""NAT and DiNAT against recordings of the official code, whose operators were written out densely."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from vision_tools import assert_equals_recording, assert_official_keys, image, randomized

from graphrec import vision
from graphrec.errors import RunError

ISOTROPIC = {
    "img_size": 56,
    "patch_size": 8,
    "embed_dim": 8,
    "depths": (2,),
    "num_heads": (2,),
    "kernel_size": 3,
    "dilations": (2,),
    "drop_path_rate": 0.0,
}


@pytest.mark.parametrize(
    ("recording", "name", "options"),
    [
        ("dinat", "dinat_test", {}),
        ("dinat_s", "dinat_s_test", {"mlp_ratio": 4.0}),
        ("dinat_isotropic", "nat_isotropic_small", ISOTROPIC),
        ("vitrpb", "vitrpb_test", {}),
    ],
)
def test_equals_official(recording: str, name: str, options: dict[str, object]) -> None:
    """Uneven maps, dilations that do not divide them, and maps that are padded to the neighborhood."""
    assert_equals_recording(vision.create_model(name, num_classes=11, **options), recording)


@pytest.mark.parametrize("name", ["dinat_test", "dinat_s_test", "vitrpb_test"])
def test_official_keys(name: str) -> None:
    assert_official_keys(vision.create_model(name))


def test_tables_of_another_neighborhood_are_resized() -> None:
    model = randomized(vision.create_model("dinat_test"))
    other = vision.create_model("dinat_test", kernel_size=5)
    vision.load_weights(other, vision.official_state(model))
    name = "stages.1.blocks.0.attn.rpb"
    wanted = F.interpolate(model.state_dict()[name][None], size=(9, 9), mode="bicubic")[0]
    assert torch.equal(other.state_dict()[name], wanted)
    with pytest.raises(RunError, match=r"rpb \(2, 5, 5\), the model has \(1, 9, 9\)"):
        vision.load_weights(
            vision.create_model("dinat_test", kernel_size=5, num_heads=(1, 1)), vision.official_state(model)
        )


def test_whole_map_is_that_of_the_image_size() -> None:
    model = randomized(vision.create_model("vitrpb_test", img_size=(32, 48)))
    assert model.stages[0].blocks[0].attn.rpb.shape == (2, 7, 11)
    assert model(image(model)).isfinite().all()
