"""One self-contained page that tells a colleague how a model did."""
