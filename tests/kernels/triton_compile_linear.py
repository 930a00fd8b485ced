"""Compile the kernels of linear attention for one architecture and print their resources."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton_compile import usage

from graphrec.kernels.linear import triton_backward, triton_kernels
from graphrec.kernels.linear.settings import NONE, SCALAR, VECTOR, linear_config

FLOATS = ("g_ptr", "first_ptr", "states_ptr", "dstates_ptr", "dg_ptr")
"""Pointers to float32 whatever the dtype under test; other names that end in _ptr have that dtype."""

CASES = [("bf16", 64, NONE), ("bf16", 128, SCALAR), ("bf16", 64, VECTOR), ("fp32", 32, SCALAR)]


def compile_kernel(name: str, dtype: str, dim: int, decay: int, arch: int) -> dict[str, int]:
    """Compile one kernel as a call with contiguous tensors would, and return its resources."""
    kernel = getattr(triton_backward if name.startswith("backward") else triton_kernels, name)
    config = linear_config(dim, dim, {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype], decay)
    every: dict[str, Any] = {
        "DECAY": decay, "BACK": True, "LEVELS": config.chunk.bit_length() - 1, "C": config.chunk,
        "BK": config.bk, "BV": config.bv, "PRECISION": "tf32x3" if dtype == "fp32" else "tf32",
        "INTERPRET": False, "q_d": 1, "k_d": 1, "v_d": 1, "g_d": 1,
    }  # fmt: skip
    names = kernel.arg_names
    constants = {one: value for one, value in every.items() if one in names}
    floats = (*FLOATS, "out_ptr") if name == "states" else FLOATS
    signature = {one: "constexpr" if one in constants else _kind(one, dtype, floats) for one in names}
    even = {(place,) for place, one in enumerate(names) if signature[one][0] == "*"}
    even |= {
        (names.index(one),) for one in ("q_t", "k_t", "v_t", "dim", "v_dim") if one in names
    }  # as a call with dimensions that are multiples of 16
    source = ASTSource(
        kernel,
        signature,
        {(names.index(one),): value for one, value in constants.items()},
        {place: [["tt.divisibility", 16]] for place in even},
    )
    warps = config.back_warps if name == "backward_qk" else config.warps
    options = {"num_warps": warps, "num_stages": config.stages}
    made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    tensor_cores = len(re.findall(r"wgmma\.mma|mma\.sync|tcgen05\.mma", made.asm["ptx"]))
    return {"shared": made.metadata.shared, "tensor_cores": tensor_cores, **usage(made.asm["cubin"])}


def _kind(name: str, dtype: str, floats: tuple[str, ...]) -> str:
    if name in floats:
        return "*fp32"
    return f"*{dtype}" if name.endswith("_ptr") else "i32"


def main(arch: int) -> None:
    """Print the resources of every kernel for every kind of decay."""
    found = {
        f"{name} {dtype} {dim} decay {decay}": compile_kernel(name, dtype, dim, decay, arch)
        for name in ("states", "output", "backward_v", "backward_qk")
        for dtype, dim, decay in CASES
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
