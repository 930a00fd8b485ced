"""Every kernel over edges and of dynamic convolution compiles for sm_80, sm_90 and sm_100 without a GPU."""

from __future__ import annotations

import ast
from importlib.metadata import version
from pathlib import Path

import pytest
from compiling import ARCHITECTURES, compile_kernels, needs_compiler

pytestmark = needs_compiler

KERNELS = Path(__file__).parents[2] / "kernels"
SPILLED_BY_3_8 = {("triton_attention.forward bf16 256", 80): 8}
"""What triton 3.8, and no other version tried, spills: bytes by kernel and architecture."""

MODULES = ("graph/triton_kernels.py", "graph/triton_attention.py", "conv/dynamic_triton_kernels.py")


def launched(path: Path) -> set[str]:
    """Kernels of a file: compiled functions that read their place in the grid."""
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    return {f"{path.stem}.{one.name}" for one in functions if "program_id" in ast.dump(one)}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_kernels_compile(arch: int, tmp_path: Path) -> None:
    found = compile_kernels("triton_compile_graph.py", arch, tmp_path)
    assert {name.split()[0] for name in found} == set().union(*(launched(KERNELS / one) for one in MODULES))
    for name, facts in found.items():
        assert facts["shared"] <= 16 * 1024, (name, facts)
        known = SPILLED_BY_3_8.get((name, arch), 0) if version("triton").startswith("3.8.") else 0
        assert facts["spilled"] <= known, (name, facts)
        assert facts["registers"] <= 208, (name, facts)
