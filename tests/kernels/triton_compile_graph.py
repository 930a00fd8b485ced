"""Compile the kernels over edges and of dynamic convolution for one architecture, and print their resources.

``triton_compile_graph.py 90``
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton_compile import usage

from graphrec.kernels.conv import dynamic_triton_kernels
from graphrec.kernels.conv.dynamic_triton import dynamic_config
from graphrec.kernels.graph import triton_attention, triton_kernels
from graphrec.kernels.graph.triton import attention_tiles, graph_config

FLOATS = ("lse_ptr", "delta_ptr")
"""Pointers to float32, whatever the dtype of the features."""

TABLES = ("rows", "columns", "index", "order", "row", "ptr")
"""Pointers to int64 where the kernel reads a table or a graph by that name; elsewhere a number."""

SMALL_TABLES = ("row_out", "row_tap", "column_out", "column_tap", "ties_ptr")
"""Pointers to int32."""

Settings = dict[str, Any]


def kinds(name: str, dtype: str, counted: tuple[str, ...]) -> str:
    """The type of an argument; ``counted`` are names of tables that are numbers in this kernel."""
    if name in FLOATS or (name.endswith("_ptr") and dtype == "fp32"):
        return "*i32" if name in SMALL_TABLES else "*fp32"
    if name in SMALL_TABLES:
        return "*i32"
    if name in TABLES and name not in counted:
        return "*i64"
    if name.endswith("_ptr"):
        return f"*{dtype}"
    return "fp32" if name == "scale" else "i32"


def compile_kernel(
    kernel: Any, dtype: str, arch: int, settings: Settings, counted: tuple[str, ...]
) -> dict[str, int]:
    """Compile one kernel as a call with contiguous features would, and return its resources."""
    constants = {name: value for name, value in settings.items() if name in kernel.arg_names}
    names = kernel.arg_names
    signature = {one: "constexpr" if one in constants else kinds(one, dtype, counted) for one in names}
    aligned = {
        (place,): [["tt.divisibility", 16]] for place, one in enumerate(names) if signature[one][0] == "*"
    }
    source = ASTSource(
        kernel, signature, {(names.index(one),): value for one, value in constants.items()}, aligned
    )
    made = triton.compile(
        source, target=GPUTarget("cuda", arch, 32), options={"num_warps": settings["num_warps"]}
    )
    return {"shared": made.metadata.shared, **usage(made.asm["cubin"])}


ONES = dict.fromkeys(("x_d", "a_d", "b_d", "q_d", "k_d", "v_d", "s_h", "w_h", "g_h"), 1)


def edge_settings(dim: int) -> Settings:
    """What the kernels over edges and features are launched with."""
    return {"WEIGHT": True, "ORDER": True, **ONES, **graph_config(dim).settings()}


def softmax_settings(block: int) -> Settings:
    """What the softmax over edges is launched with."""
    return {"BE": block, "num_warps": max(1, block // 128), **ONES}


def attention_settings(dim: int) -> Settings:
    """What the fused attention over edges is launched with."""
    return {"BIAS": True, **ONES, **attention_tiles(dim, dim)}


def conv_settings(members: int) -> Settings:
    """What dynamic convolution is launched with, for columns that lie next to each other."""
    return {"x_j": 1, "o_j": 1, "w_j": 1, **dynamic_config(members, 56 * 56).settings()}


TABLE: list[tuple[ModuleType, str, Callable[[int], Settings], tuple[int, ...], tuple[str, ...]]] = [
    (triton_kernels, "sums", edge_settings, (1, 64), ("rows",)),
    (triton_kernels, "products", edge_settings, (1, 64), ()),
    (triton_kernels, "softmax", softmax_settings, (32, 1024), ("rows",)),
    (triton_kernels, "softmax_backward", softmax_settings, (32, 1024), ("rows",)),
    (triton_kernels, "maxima", edge_settings, (64,), ()),
    (triton_kernels, "maxima_to_nodes", edge_settings, (64,), ()),
    (triton_kernels, "maxima_to_edges", edge_settings, (64,), ()),
    (triton_attention, "forward", attention_settings, (16, 256), ("rows",)),
    (triton_attention, "backward_rows", attention_settings, (16, 256), ("rows",)),
    (triton_attention, "backward_columns", attention_settings, (16, 256), ("columns",)),
    (dynamic_triton_kernels, "forward", conv_settings, (1, 16), ()),
    (dynamic_triton_kernels, "backward_input", conv_settings, (16,), ()),
    (dynamic_triton_kernels, "backward_weight", conv_settings, (1, 16), ()),
]
"""Module, kernel, its settings by size, the sizes, and arguments that are numbers in spite of their names."""


def main(arch: int) -> None:
    """Print the resources of every kernel for a few settings."""
    found = {}
    for module, name, settings, sizes, counted in TABLE:
        for place, size in enumerate(sizes):
            dtype = "fp32" if place == 0 and len(sizes) > 1 else "bf16"
            key = f"{module.__name__.rpartition('.')[2]}.{name} {dtype} {size}"
            found[key] = compile_kernel(getattr(module, name), dtype, arch, settings(size), counted)
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
