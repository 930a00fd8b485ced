"""Seconds until `import graphrec` and `graphrec --help` are done, beside a bare interpreter.

python benchmarks/import_time.py --repeats 9
"""

from __future__ import annotations

import sys

import common

CODE = {
    "python -c pass": "pass",
    "import graphrec": "import graphrec",
    "graphrec --help": "import sys; sys.argv = ['graphrec', '--help']; from graphrec.cli import main; main()",
    "import torch": "import torch",
    "import polars": "import polars",
}


def text(jobs: list[common.Job]) -> str:
    """The result as Markdown."""
    rows = [[f"`{job.name}`", *(common.spread(job, key, 2) for key in ("cpu", "wall"))] for job in jobs]
    return common.markdown_table(["", "CPU seconds", "wall seconds"], rows)


def main() -> None:
    """Run and record."""
    options = common.parser(__doc__, repeats=9).parse_args()
    every = [common.Job(name, "import", sys.executable, {"code": code}) for name, code in CODE.items()]
    jobs = common.available(every, options.only)
    common.interleave(jobs, options.repeats, options.threads)
    common.record("import_time", "Time to import", text(jobs), jobs, options)


if __name__ == "__main__":
    main()
