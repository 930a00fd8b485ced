"""Settings that the tuner tries change how kernels run, never what they compute: two of each, in Triton."""

from __future__ import annotations

import os

import pytest
import torch
from kernel_tools import distance
from torch import Tensor
from torch.utils._pytree import tree_leaves

from graphrec.kernels import table
from graphrec.kernels.backends import triton_missing
from graphrec.kernels.catalogue import CALLS
from graphrec.kernels.workloads import WORKLOADS

ON_GPU = torch.cuda.is_available()
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton_missing() is not None, reason="triton is not installed"),
    pytest.mark.skipif(not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1", reason="run with -m triton"),
]


def trained(name: str, backend: str) -> list[Tensor]:
    """Outputs of an operator's call in the catalogue, and gradients of its tensors."""
    call = CALLS[name]
    args, kwargs = call.make("cuda" if ON_GPU else "cpu", grad=True)
    leaves = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor) and one.requires_grad]
    out = call.operator(*args, **kwargs, backend=backend)
    return [out.detach(), *torch.autograd.grad(out, leaves, torch.ones_like(out))]


@pytest.mark.parametrize("name", sorted(WORKLOADS.keys() & CALLS.keys()))
def test_settings_change_no_numbers(name: str) -> None:
    want = trained(name, "torch")
    tried = list(WORKLOADS[name].candidates(16, torch.float32, "sm_90"))
    for settings in (tried[0], tried[-1]):
        with table.trying(name, settings):
            found = trained(name, "triton")
        for one, other in zip(found, want, strict=True):
            assert distance(one, other) < 1e-4, settings
