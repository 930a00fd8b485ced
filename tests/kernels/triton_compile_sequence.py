"""Compile the Triton kernels along a sequence for one architecture and print their resources, as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton_compile import usage

from graphrec.kernels.conv import causal_kernels
from graphrec.kernels.scan import selective_kernels
from graphrec.kernels.scan import triton_kernels as scan_kernels
from graphrec.kernels.scan.settings import scan_config, selective_config

FLOATS = {
    "decay_ptr", "end_ptr", "first_ptr", "later_ptr", "rate_ptr", "starts_ptr", "arriving_ptr",
    "drate_ptr", "slope_ptr", "dweight_ptr", "dbias_ptr", "din_ptr", "dread_ptr", "dskip_ptr",
}  # fmt: skip
"""Pointers to float32 whatever the dtype under test; others that end in _ptr have it, the rest is int32."""

Case = tuple[Any, str, int, dict[str, Any]]


def table() -> list[Case]:
    """Kernel, dtype, warps and constants of every case."""
    scan = scan_config(512)
    tile = {"BACK": True, "BT": scan.bt, "BD": scan.bd, "a_d": 1, "b_d": 1, "grad_d": 1}
    cases: list[Case] = []
    for dtype in ("bf16", "fp32"):
        cases += [
            (scan_kernels.ends, dtype, scan.warps, {"SHIFT": 1, **tile}),
            (scan_kernels.forward, dtype, scan.warps, tile),
            (scan_kernels.backward, dtype, scan.warps, tile),
        ]
    selective = selective_config(512)
    bits: dict[str, Any] = {"BACK": True, "BT": selective.bt, "BD": selective.bd, "SKIP": True, "GATE": True}
    bits |= {"u_d": 1, "delta_d": 1, "gate_d": 1, "in_n": 1, "read_n": 1}
    for name in ("chunk_ends", "forward", "grad_ends", "gradients"):
        cases.append((getattr(selective_kernels, name), "bf16", selective.warps, bits))
    for taps, dtype in ((4, "bf16"), (16, "fp32")):
        conv = {
            "W": taps,
            "BT": 64,
            "BD": 64,
            "STATE": True,
            "BIAS": True,
            "SILU": True,
            "x_d": 1,
            "state_d": 1,
        }
        for name in ("forward", "grad_filter", "grad_input"):
            cases.append((getattr(causal_kernels, name), dtype, 4, conv))
    return cases


def kind(name: str, dtype: str) -> str:
    if not name.endswith("_ptr"):
        return "i32"
    return "*fp32" if name in FLOATS else f"*{dtype}"


def compile_case(case: Case, arch: int) -> dict[str, int]:
    """Compile one kernel as a call with contiguous tensors would, and return its resources."""
    kernel, dtype, warps, given = case
    names = kernel.arg_names
    constants = {name: value for name, value in given.items() if name in names}
    signature = {name: "constexpr" if name in constants else kind(name, dtype) for name in names}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(names)
        if signature[name][0] == "*" or name == "width" or name.endswith("_t")
    }
    source = ASTSource(
        kernel, signature, {(names.index(name),): value for name, value in constants.items()}, aligned
    )
    made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": warps})
    return {"shared": made.metadata.shared, **usage(made.asm["cubin"])}


def main(arch: int) -> None:
    """Print the resources of every kernel of the table."""
    found = {}
    for case in table():
        module = case[0].fn.__module__.split(".", 2)[-1]
        found[f"{module}.{case[0].fn.__name__} {case[1]}"] = compile_case(case, arch)
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
