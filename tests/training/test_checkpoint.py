import os
import random

import numpy as np
import pytest
import torch

from graphrec.errors import RunError
from graphrec.training.checkpoint import CheckpointFolder, differences, read_tree, write_tree
from graphrec.training.seeding import rng_state, seeded, set_rng_state

TREE = {
    "optimizer": {
        "state": {0: {"step": torch.tensor(3.0), "mean": torch.randn(4, 2)}},
        "groups": [{"betas": (0.9, 0.99)}],
    },
    "numbers": [1, 2.5, True, None, "text", float("inf"), 1e-300, 0.1 + 0.2],
    "types": [torch.arange(3), torch.ones(2, dtype=torch.bfloat16), torch.tensor([True]), torch.empty(0, 3)],
    "strided": torch.arange(6).view(2, 3).T,
    "part": torch.arange(100)[3:5],
}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_round_trip_of_nested_state(tmp_path):
    write_tree(tmp_path / "t.safetensors", TREE)
    assert same(read_tree(tmp_path / "t.safetensors"), TREE)


def test_a_tensor_held_twice_is_written_once(tmp_path):
    weight = torch.randn(1000)
    write_tree(tmp_path / "t", {"a": weight, "b": weight, "c": weight[:10]})
    assert os.path.getsize(tmp_path / "t") < 1.5 * weight.nbytes
    read = read_tree(tmp_path / "t")
    assert torch.equal(read["b"], weight)
    assert torch.equal(read["c"], weight[:10])


def test_loaded_tensors_are_aligned_and_do_not_hold_the_file(tmp_path):
    write_tree(tmp_path / "t", {"odd": torch.ones(3, dtype=torch.uint8), "x": torch.randn(100)})
    read = read_tree(tmp_path / "t")
    os.truncate(tmp_path / "t", 0)
    assert read["x"].data_ptr() % 64 == 0
    assert bool(torch.isfinite(read["x"]).all())


def test_random_states_round_trip(tmp_path):
    with seeded(3):
        torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
        write_tree(tmp_path / "t", rng_state())
        first = (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.gauss(0, 1))  # noqa: NPY002
        set_rng_state(read_tree(tmp_path / "t"))
        assert first == (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.gauss(0, 1))  # noqa: NPY002


def test_seeded_leaves_the_generators_alone():
    before = rng_state()
    with seeded(0):
        torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
    after = rng_state()
    assert torch.equal(before["torch"], after["torch"])
    assert before["python"] == after["python"]
    assert all(np.array_equal(a, b) for a, b in zip(before["numpy"], after["numpy"], strict=True))


def test_other_types_are_refused_by_name(tmp_path):
    with pytest.raises(RunError, match=r"cannot save /a/1, a set"):
        write_tree(tmp_path / "t", {"a": [1, {2}]})
    assert not list(tmp_path.iterdir())


def test_two_newest_are_kept(tmp_path):
    folder = CheckpointFolder(tmp_path / "c")
    for epoch, step in [(0, 5), (0, 10), (1, 0), (1, 5)]:
        folder.save({"at": [epoch, step]}, epoch, step)
    assert len(folder.files()) == 2
    assert folder.load() == {"at": [1, 5]}
    folder.prune(1)
    assert folder.load() == {"at": [1, 5]}


def test_nothing_to_load(tmp_path):
    assert CheckpointFolder(tmp_path / "none").load() is None


@pytest.mark.parametrize("damage", ["truncate", "garbage", "empty"])
def test_a_damaged_file_is_passed_over(tmp_path, damage):
    folder = CheckpointFolder(tmp_path)
    folder.save({"x": torch.ones(1000), "at": 1}, 0, 1)
    newest = folder.save({"x": torch.ones(1000), "at": 2}, 0, 2)
    content = newest.read_bytes()
    newest.write_bytes({"truncate": content[:-100], "garbage": b"\xff" * 500, "empty": b""}[damage])
    with pytest.warns(UserWarning, match=f"{newest.name}: .*trying the one before it"):
        assert folder.load()["at"] == 1


def test_when_all_are_damaged_it_says_so(tmp_path):
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        folder.save({"at": step}, 0, step).write_bytes(b"torn")
    with (
        pytest.warns(UserWarning, match="trying") as told,
        pytest.raises(RunError, match=r"step000000001.*cannot be read: .*; there is none before it, so"),
    ):
        folder.load()
    assert len(told) == 1


def test_another_safetensors_file_is_not_a_checkpoint(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.ones(1)}, tmp_path / "m.safetensors")
    with pytest.raises(RunError, match="not a checkpoint"):
        read_tree(tmp_path / "m.safetensors")


def test_a_write_that_dies_leaves_the_old_one(tmp_path, monkeypatch):
    folder = CheckpointFolder(tmp_path)
    folder.save({"at": 1}, 0, 1)

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("graphrec.training.checkpoint.os.replace", die)
        with pytest.raises(KeyboardInterrupt):
            folder.save({"at": 2}, 0, 2)
    assert folder.load() == {"at": 1}
    folder.save({"at": 3}, 0, 3)
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="the checkpoint cannot be written"):
        CheckpointFolder(tmp_path / "file" / "c").save({"at": 1}, 0, 1)


def test_differences_in_words():
    assert differences({"a": 1, "b": 2}, {"a": 1, "b": 3}) == ["b is 2 here and 3 in the checkpoint"]
    assert differences({"a": 1}, {"a": 1}) == []
