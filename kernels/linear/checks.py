"""What the operators of this folder ask of their inputs."""

from __future__ import annotations

import torch
from torch import Tensor


def check_inputs(q: Tensor, k: Tensor, v: Tensor, chunk: int, *, share: bool = False) -> None:
    """Raise ValueError unless q and k are (B, H, T, K) and v (B, H, T, V), alike in dtype and device.

    With ``share`` the heads of v may be a multiple of those of q and k.
    """
    if q.dim() != 4 or k.shape != q.shape or v.dim() != 4 or not _heads_fit(q, v, share):
        found = ", ".join(str(tuple(one.shape)) for one in (q, k, v))
        many = "H a multiple of that of q" if share else "the same B, H and T"
        raise ValueError(f"q, k and v must be (B, H, T, K) twice and (B, H, T, V), {many}, got {found}")
    if not q.is_floating_point() or k.dtype != q.dtype or v.dtype != q.dtype:
        raise ValueError(
            f"q, k and v must be floating point of one dtype, got {q.dtype}, {k.dtype}, {v.dtype}"
        )
    if k.device != q.device or v.device != q.device:
        raise ValueError(f"q, k and v must be on one device, got {q.device}, {k.device}, {v.device}")
    if chunk < 1:
        raise ValueError(f"chunk={chunk} must be at least 1")


def _heads_fit(q: Tensor, v: Tensor, share: bool) -> bool:
    if (q.shape[0], q.shape[2]) != (v.shape[0], v.shape[2]):
        return False
    return bool(v.shape[1] == q.shape[1] or (share and q.shape[1] > 0 and v.shape[1] % q.shape[1] == 0))


def check_gate(name: str, x: Tensor, v: Tensor, sizes: tuple[int, ...]) -> None:
    """Raise ValueError unless ``x`` is floating point, (B, H, T) and then ``sizes``, on the device of v."""
    want = (*v.shape[:3], *sizes)
    if tuple(x.shape) != want or not x.is_floating_point() or x.device != v.device:
        raise ValueError(
            f"{name} must be floating point of shape {want} on {v.device}, "
            f"got {x.dtype} of shape {tuple(x.shape)} on {x.device}"
        )


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype that states and sums of decays are kept in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def first_state(state: Tensor | None, q: Tensor, v: Tensor) -> Tensor:
    """The state to start from, (B, H, K, V), zeros if none is given.

    Raises:
        ValueError: it has another shape, or is on another device than v.
    """
    want = (v.shape[0], v.shape[1], q.shape[3], v.shape[3])
    if state is None:
        return torch.zeros(want, dtype=wide(v.dtype), device=v.device)
    if tuple(state.shape) != want or state.device != v.device:
        found = f"{tuple(state.shape)} on {state.device}"
        raise ValueError(f"state of shape {found} must be {want} on {v.device}")
    return state.to(wide(v.dtype))
