"""Compile kernels of small groups, listed keys and chosen blocks for one architecture; print resources."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton_compile import usage

from graphrec.kernels.attention import blocks_kernels, keylists_kernels, small_kernels, triton_kernels
from graphrec.kernels.attention.settings import group_config, list_config

FLOATS = ("lse_ptr", "delta_ptr", "tiles_ptr", "table_ptr", "dlogits_ptr", "scores_ptr")
LONGS = ("index_ptr", "uses_ptr", "starts_ptr")
WORDS = ("q_rows", "k_rows", "q_tile", "k_tile", "work", "bits", "soft", "q_place", "k_place")
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def kind(name: str, dtype: str, whole: tuple[str, ...]) -> str:
    """The type of an argument: a table of pointers, then ``*_ptr`` of the dtype under test, then int32."""
    if name in ("scale", "penalty"):
        return "fp32"
    for names, made in ((FLOATS + whole, "*fp32"), (LONGS, "*i64"), (WORDS, "*i32")):
        if name in names:
            return made
    return f"*{dtype}" if name.endswith("_ptr") else "i32"


def compile_kernel(
    kernel: Any, dtype: str, constants: dict[str, Any], warps: int, arch: int, *whole: str
) -> dict[str, int]:
    """Resources of one kernel, called with contiguous tensors; ``whole`` are float32 pointers besides."""
    names = kernel.arg_names
    every = {"q_d": 1, "k_d": 1, "v_d": 1, "x_d": 1, "i_s": 1, "INTERPRET": False, "WIDE": False, **constants}
    every = {one: value for one, value in every.items() if one in names}
    signature = {one: "constexpr" if one in every else kind(one, dtype, whole) for one in names}
    even = {place for place, one in enumerate(names) if signature[one][0] == "*"}
    even |= {names.index(one) for one in ("q_n", "k_n", "v_n", "x_n", "dim", "v_dim") if one in names}
    source = ASTSource(
        kernel,
        signature,
        {(names.index(one),): value for one, value in every.items()},
        {(place,): [["tt.divisibility", 16]] for place in sorted(even)},
    )
    made = triton.compile(
        source, target=GPUTarget("cuda", arch, 32), options={"num_warps": warps, "num_stages": 1}
    )
    cores = sum(made.asm["ptx"].count(one) for one in ("wgmma.mma", "mma.sync", "tcgen05.mma"))
    return {"shared": made.metadata.shared, "tensor_cores": cores, **usage(made.asm["cubin"])}


def small(name: str, dtype: str, dim: int, width: int, arch: int) -> dict[str, int]:
    """A kernel of small groups with a table."""
    config = group_config(width, dim, DTYPES[dtype])
    assert config is not None
    constants = {
        "BIAS": True, "SOFT": True, "SUM": True, "SIZE": config.size, "BD": dim, "BE": dim,
        "PRECISION": "tf32x3" if dtype == "fp32" else "tf32",
    }  # fmt: skip
    return compile_kernel(getattr(small_kernels, name), dtype, constants, config.warps, arch)


def listed(name: str, dtype: str, dim: int, arch: int) -> dict[str, int]:
    """A kernel over listed keys with a bias."""
    config = list_config(dim)
    constants = {"BIAS": True, "BQ": config.bq, "BS": config.bs, "BD": dim, "BE": dim}
    return compile_kernel(getattr(keylists_kernels, name), dtype, constants, config.warps, arch)


def main(arch: int) -> None:
    """Print the resources of every kernel for a few settings."""
    found = {}
    for name in ("forward", "backward"):
        for dtype, dim, width in (("bf16", 32, 49), ("bf16", 128, 64), ("fp32", 64, 16), ("bf16", 32, 16)):
            found[f"small {name} {dtype} {dim} {width}"] = small(name, dtype, dim, width, arch)
    for name in ("forward", "backward_q", "backward_kv"):
        for dtype, dim in (("bf16", 64), ("fp32", 128)):
            found[f"listed {name} {dtype} {dim}"] = listed(name, dtype, dim, arch)
    rows = {"HAS_LSE": True, "BM": 64, "BE": 64}
    found["row products"] = compile_kernel(triton_kernels.row_products, "bf16", rows, 4, arch, "lse_grad_ptr")
    found["means"] = compile_kernel(blocks_kernels.means, "bf16", {"BN": 64, "BD": 64}, 4, arch, "out_ptr")
    tile = {"BM": 32, "BN": 32, "BD": 128, "CAUSAL": True}
    found["scores"] = compile_kernel(blocks_kernels.scores, "bf16", tile, 4, arch, "k_ptr", "out_ptr")
    found["best"] = compile_kernel(blocks_kernels.best, "i64", {"BN": 1024}, 4, arch)
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
