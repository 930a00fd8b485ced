"""Small programs to start from; each runs with ``python -m graphrec.examples.NAME``."""
