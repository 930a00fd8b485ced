"""``python -m graphrec`` is the command ``graphrec``."""

from graphrec.cli import main

main()
