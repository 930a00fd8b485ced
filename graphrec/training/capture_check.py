"""Optimisers on a CPU need not look for a GPU in every step."""

from __future__ import annotations

from torch.optim import Optimizer

_CHECK = "_accelerator_graph_capture_health_check"


def leave_out_capture_check(optimizer: Optimizer) -> None:
    """For parameters on a CPU: do not ask, in every step, whether a GPU is recording a graph.

    torch's Adam asks by counting GPUs, for which Lightning has it load NVIDIA's management library
    (``PYTORCH_NVML_BASED_CUDA_CHECK``). Where a CUDA build of torch runs without a GPU, that fails and is
    tried anew in every step, a tenth of a millisecond at the least.
    """
    if hasattr(optimizer, _CHECK):
        setattr(optimizer, _CHECK, _nothing)


def _nothing() -> None:
    """In place of the check."""
