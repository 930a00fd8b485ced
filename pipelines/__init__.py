"""Pipelines: from data as people keep it (tables, graphs, images) to batches of tensors."""
