"""CPU time of dynamic convolution and outlook attention in training, and of the same from unfolded windows.

python benchmarks/dynamic_conv.py --repeats 7
"""

from __future__ import annotations

from typing import Any

import common
from graph_operators import make_cases, run, table

CONV: dict[str, Any] = {"batch": 1, "channels": 64, "groups": 4, "side": 56, "channels_last": False}
CONV |= {"case": "convolution", "dtype": "float32"}
VOLO: dict[str, Any] = {"case": "outlook", "batch": 1, "channels": 192, "groups": 6, "side": 28, "kernel": 3}
VOLO |= {"stride": 2, "dtype": "float32"}

CASES: list[tuple[str, dict[str, Any]]] = [
    ("kernel 3", {**CONV, "kernel": 3}),
    ("kernel 7", {**CONV, "kernel": 7}),
    ("kernel 7, bfloat16", {**CONV, "kernel": 7, "dtype": "bfloat16"}),
    ("kernel 7, channels last", {**CONV, "kernel": 7, "channels_last": True}),
    ("`outlook`, kernel 3, stride 2", VOLO),
    ("`outlook`, kernel 3, stride 1", {**VOLO, "stride": 1}),
]


def main() -> None:
    """Run and record."""
    options = common.parser(__doc__, repeats=7).parse_args()
    jobs = common.available(make_cases(CASES, options.repeats), options.only)
    cases = [run(job, options.threads) for job in jobs]
    text = (
        table(cases, "forward and backward")
        + "\n\n`dynamic_conv2d` at 56x56, 64 channels in 4 groups; `outlook` at 28x28, 192 channels in 6"
        " heads, as in the first stage of VOLO-D1, where the stride is 2. Batch 1 and float32 unless it says"
        " otherwise. Outputs and the gradients of both inputs, which are compared with float64 first."
    )
    every = [job for contenders in cases for job in contenders]
    common.record("dynamic_conv", "Dynamic convolution on a CPU", text, every, options)


if __name__ == "__main__":
    main()
