"""Classifiers of images: `ImageClassifier`, and the parts of its training."""

from .classifier import ImageClassifier

__all__ = ["ImageClassifier"]
