"""Attention to listed keys in plain torch against the float64 formula, and against equal patterns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_tools import assert_within_budget, distance
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from graphrec.kernels import attention, gather_attention
from graphrec.kernels.attention import keylists_torch
from graphrec.kernels.patterns import Tokens

LENGTHS = (1, 2, 7, 49, 63, 65, 197)
DIMS = (1, 6, 10, 16, 20, 30, 32, 53, 64, 77, 96, 128)


def runner(index: Tensor, backend: str, **options: object) -> Callable[..., tuple[Tensor]]:
    def run(q: Tensor, k: Tensor, v: Tensor, *bias: Tensor) -> tuple[Tensor]:
        added = bias[0] if bias else None
        return (gather_attention(q, k, v, index, bias=added, backend=backend, **options),)  # type: ignore[arg-type]

    return run


@pytest.mark.parametrize("share", [1 << 20, 0], ids=["all products", "listed rows"])
@settings(max_examples=20)
@given(data=st.data())
def test_drawn_shapes(share: int, data: st.DataObject) -> None:
    q_len, k_len = data.draw(st.sampled_from(LENGTHS)), data.draw(st.sampled_from(LENGTHS))
    batch, k_heads, groups = (data.draw(st.integers(1, 2)) for _ in range(3))
    dim, v_dim = data.draw(st.sampled_from(DIMS)), data.draw(st.sampled_from(DIMS))
    listed, own = data.draw(st.integers(0, 9)), data.draw(st.booleans())
    heads = k_heads * groups
    torch.manual_seed(data.draw(st.integers(0, 99)))
    index = torch.randint(-1, k_len, (batch, heads if own else 1, q_len, listed))
    given = [
        torch.randn(batch, q_len, heads, dim, dtype=torch.float64).transpose(1, 2),
        torch.randn(dim, batch, k_heads, k_len, dtype=torch.float64).permute(1, 2, 3, 0),
        torch.randn(batch, k_heads, k_len, 2 * v_dim, dtype=torch.float64)[..., ::2],
    ]
    if data.draw(st.booleans()):
        given.append(torch.randn(1, heads, q_len, listed, dtype=torch.float64))
    scale = data.draw(st.sampled_from([None, 0.3]))
    before, keylists_torch._SHARE = keylists_torch._SHARE, share
    try:
        assert_within_budget(
            runner(index, "torch", scale=scale), runner(index, "reference", scale=scale), given
        )
    finally:
        keylists_torch._SHARE = before


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_lists_without_repetition_are_a_pattern(backend: str) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 30, 8), torch.randn(2, 2, 40, 8), torch.randn(2, 2, 40, 5)
    index = torch.rand(2, 4, 30, 40).topk(6).indices
    index[:, :, 3] = -1
    index[..., 5] = -1
    found = gather_attention(q, k, v, index, backend=backend)
    torch.testing.assert_close(found, attention(q, k, v, Tokens(index)))
    assert not found[:, :, 3].any()


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_a_key_named_twice_counts_twice(backend: str) -> None:
    q, k, v = (torch.randn(1, 1, 1, 4, dtype=torch.float64) for _ in range(3))
    k, v = torch.cat([k, -k], 2), torch.cat([v, 2 * v], 2)
    found = gather_attention(q, k, v, torch.tensor([[[[0, 0, 1]]]]), backend=backend)
    weights = (q @ k.mT / 2).exp() * torch.tensor([2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(found, weights / weights.sum() @ v)


@pytest.mark.parametrize("share", [1 << 20, 0])
def test_gradcheck(share: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keylists_torch, "_SHARE", share)
    torch.manual_seed(0)
    leaves = [torch.randn(1, 2, *size, dtype=torch.float64) for size in ((5, 3), (6, 3), (6, 2), (5, 4))]
    index = torch.randint(-1, 6, (1, 2, 5, 4))
    index[:, :, 2] = -1
    run = runner(index, "torch")
    assert torch.autograd.gradcheck(run, [one.requires_grad_() for one in leaves], fast_mode=True)


def test_operator_is_registered() -> None:
    q, k, v = (torch.randn(1, 2, 5, 4, requires_grad=True) for _ in range(3))
    bias = torch.randn(1, 2, 5, 3, requires_grad=True)
    index = torch.randint(-1, 5, (1, 1, 5, 3))
    torch.library.opcheck(keylists_torch.listed_attention.registered, (q, k, v, index, bias, 0.5))


def test_compiling_exporting_checkpointing_autocast() -> None:
    torch._dynamo.reset()
    q, k, v = (torch.randn(1, 2, 9, 4, requires_grad=True) for _ in range(3))
    index = torch.randint(-1, 9, (1, 2, 9, 3))

    def run(q: Tensor, k: Tensor, v: Tensor, index: Tensor) -> Tensor:
        return gather_attention(q, k, v, index).sin()

    want = run(q, k, v, index)
    found = torch.compile(run, fullgraph=True, backend="aot_eager")(q, k, v, index)
    again = checkpoint(run, q, k, v, index, use_reentrant=False)
    for other in (found, again):
        torch.testing.assert_close(other, want)
        for one, two in zip(
            *(torch.autograd.grad(x.sum(), (q, k, v), retain_graph=True) for x in (other, want)), strict=True
        ):
            torch.testing.assert_close(one, two)

    class Module(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, index: Tensor) -> Tensor:
            return run(q, k, v, index)

    exported = torch.export.export(Module(), (q.detach(), k.detach(), v.detach(), index))
    torch.testing.assert_close(exported.module()(q, k, v, index), want)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = gather_attention(q @ torch.eye(4), k @ torch.eye(4), v @ torch.eye(4), index)
    assert low.dtype == torch.bfloat16
    assert distance(low.sin(), want) < 0.03


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    index = torch.randint(-1, 50, (2, 1, 40, 8))
    given = [torch.randn(2, 2, *size, dtype=torch.float64) for size in ((40, 32), (50, 32), (50, 32))]

    def plain(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
        places = index.clamp(min=0)
        near = [
            x[torch.arange(2)[:, None, None, None], torch.arange(2)[:, None, None], places] for x in (k, v)
        ]
        logits = (q.unsqueeze(3) * near[0]).sum(-1) * 32**-0.5
        return ((logits.masked_fill(index < 0, -torch.inf).softmax(-1).unsqueeze(-1) * near[1]).sum(3),)

    assert_within_budget(runner(index, "torch"), plain, given, dtype)


def zeros(*size: int) -> Tensor:
    return torch.zeros(size)


def listed(*size: int, fill: int = 0) -> Tensor:
    return torch.full(size, fill)


@pytest.mark.parametrize(
    ("index", "options", "said"),
    [
        (listed(1, 2, 4), {}, r"index of shape \(1, 2, 4\) must be \(1, 1 or 2, 4, any\)"),
        (listed(1, 3, 4, 2), {}, r"index of shape \(1, 3, 4, 2\)"),
        (listed(1, 2, 5, 2), {}, r"index of shape \(1, 2, 5, 2\)"),
        (zeros(1, 2, 4, 2), {}, "index is torch.float32"),
        (listed(1, 1, 4, 2, fill=6), {}, "index holds 6 to 6, must be -1 .* or 0 to 5"),
        (listed(1, 1, 4, 2, fill=-2), {}, "index holds -2"),
        (listed(1, 1, 4, 2), {"bias": zeros(1, 2, 4, 3)}, r"bias of shape \(1, 2, 4, 3\)"),
        (listed(1, 1, 4, 2), {"backend": "triton"}, "cannot run gather_attention"),
    ],
)
def test_mistakes_are_named(index: Tensor, options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        gather_attention(zeros(1, 2, 4, 3), zeros(1, 1, 6, 3), zeros(1, 1, 6, 2), index, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("small", [0, 1 << 16])
@pytest.mark.parametrize("shared", [False, True])
def test_heads_together_and_one_by_one(small: int, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small heads are one with lists into the keys of all."""
    monkeypatch.setattr(keylists_torch, "_SMALL", small)
    torch.manual_seed(0)
    index = torch.randint(-1, 9, (3, 1 if shared else 4, 5, 6))
    given_ = [
        torch.randn(3, 4, 5, 8),
        torch.randn(3, 2, 9, 8),
        torch.randn(3, 2, 9, 7),
        torch.randn(1, 4, 5, 1),
    ]

    def run(backend: str) -> Callable[..., tuple[Tensor]]:
        return lambda q, k, v, bias: (gather_attention(q, k, v, index, bias=bias, backend=backend),)

    assert_within_budget(run("torch"), run("reference"), given_)
