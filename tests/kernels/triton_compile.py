"""Compile the Triton kernels for one architecture and print their resources: ``triton_compile.py 90``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from graphrec.kernels.attention import triton_kernels
from graphrec.kernels.configs import attention_config

POINTERS = {
    "lse_ptr": "*fp32", "delta_ptr": "*fp32", "tiles_ptr": "*fp32", "q_rows": "*i32", "k_rows": "*i32",
    "ptr": "*i32", "col": "*i32", "slots": "*i32", "t_ptr": "*i32", "t_row": "*i32", "t_slots": "*i32",
    "bits": "*i32", "soft": "*i32",
    "owner": "*i32", "q_place": "*i32", "k_place": "*i32", "tq_place": "*i32", "tk_place": "*i32",
    "scale": "fp32", "penalty": "fp32",
}  # fmt: skip
"""Types of arguments; what is missing and ends in _ptr has the dtype under test, the rest is int32."""


def kinds(name: str, dtype: str) -> str:
    if name in POINTERS:
        return POINTERS[name]
    return f"*{dtype}" if name.endswith("_ptr") else "i32"


def compile_attention(
    name: str, dtype: str, dim: int, bias: int, arch: int, times: int = 0
) -> dict[str, int]:
    """Compile one kernel as a call with contiguous tensors would, and return its resources."""
    kernel = getattr(triton_kernels, name)
    torch_dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
    config = attention_config(dim, torch_dtype)
    constants: dict[str, Any] = {
        "BIAS": bias, "TIMES": times, "OF_TIMES": False, "SOFT": bias == 2,
        "BM": config.bm, "BN": config.bn, "BD": dim, "BE": dim,
        "PRECISION": "tf32x3" if dtype == "fp32" else "tf32", "INTERPRET": False, "WIDE": False,
        "q_d": 1, "k_d": 1, "v_d": 1,
    }  # fmt: skip
    names = kernel.arg_names
    constants = {one: value for one, value in constants.items() if one in names}
    signature = {one: "constexpr" if one in constants else kinds(one, dtype) for one in names}
    aligned = {
        (place,): [["tt.divisibility", 16]] for place, one in enumerate(names) if signature[one][0] == "*"
    }
    aligned |= {(names.index(one),): [["tt.divisibility", 16]] for one in ("q_n", "k_n", "v_n")}
    source = ASTSource(
        kernel, signature, {(names.index(one),): value for one, value in constants.items()}, aligned
    )
    made = triton.compile(
        source,
        target=GPUTarget("cuda", arch, 32),
        options={"num_warps": config.warps, "num_stages": config.stages},
    )
    return {
        "shared": made.metadata.shared,
        "wgmma": made.asm["ptx"].count("wgmma.mma"),
        **usage(made.asm["cubin"]),
    }


def usage(cubin: bytes) -> dict[str, int]:
    """Registers and spilled bytes (stack and local memory) of a compiled kernel."""
    tool = next(Path(triton.__file__).parent.rglob("cuobjdump*"))
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run(
            [str(tool), "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    facts = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    return {"registers": facts["REG"], "spilled": facts["STACK"] + facts["LOCAL"]}


def main(arch: int) -> None:
    """Print the resources of every kernel for a few settings."""
    found = {}
    for name in ("forward", "backward_q", "backward_kv", "backward_bias"):
        for dtype, dim, bias in (("bf16", 64, 2), ("fp32", 32, 1)):
            found[f"{name} {dtype} {dim}"] = compile_attention(name, dtype, dim, bias, arch)
    for name in ("forward", "backward_kv"):
        found[f"{name} bf16 32 weighted"] = compile_attention(name, "bf16", 32, 0, arch, times=2)
        found[f"{name} bf16 128"] = compile_attention(name, "bf16", 128, 0, arch)
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
