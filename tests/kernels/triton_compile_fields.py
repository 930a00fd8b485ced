"""Compile the kernels of attention among fields for one architecture: ``triton_compile_fields.py 90``."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton_compile import usage

from graphrec.kernels.configs import field_config, padded
from graphrec.kernels.interaction import triton_kernels

SETTINGS = [("bf16", 39, 32, True), ("fp32", 39, 32, True), ("bf16", 10, 16, False), ("bf16", 128, 64, False)]
"""Type, fields, head dimension, and whether an interacting layer surrounds the attention."""


def compile_kernel(name: str, dtype: str, fields: int, dim: int, layer: bool, arch: int) -> dict[str, int]:
    """Compile one kernel as a call with contiguous tensors would, and return its resources."""
    kernel = getattr(triton_kernels, name)
    config = field_config(fields, dim, {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype])
    constants: dict[str, Any] = {
        "COUNT": config.count, "RECTIFY": layer, "FINISH": layer, "RESIDUAL": layer,
        "BN": padded(fields), "BD": padded(dim), "BE": padded(dim),
        "PRECISION": "tf32x3" if dtype == "fp32" else "tf32", "INTERPRET": False, "WIDE": False,
    }  # fmt: skip
    names = kernel.arg_names
    kinds = {one: f"*{dtype}" if one.endswith("_ptr") else "i32" for one in names} | {"scale": "fp32"}
    signature = {one: "constexpr" if one in constants else kinds[one] for one in names}
    whole = [one for one in names if signature[one][0] == "*" or one[-2:] in ("_b", "_h", "_n")]
    made = triton.compile(
        ASTSource(
            kernel,
            signature,
            {(names.index(one),): value for one, value in constants.items()},
            {(names.index(one),): [["tt.divisibility", 16]] for one in whole},
        ),
        target=GPUTarget("cuda", arch, 32),
        options={"num_warps": config.warps, "num_stages": config.stages},
    )
    return {
        "shared": made.metadata.shared,
        "wgmma": made.asm["ptx"].count("wgmma.mma"),
        **usage(made.asm["cubin"]),
    }


if __name__ == "__main__":
    print(
        json.dumps(
            {
                f"{name} {' '.join(map(str, setting))}": compile_kernel(name, *setting, int(sys.argv[1]))
                for name in ("forward", "backward")
                for setting in SETTINGS
            }
        )
    )
