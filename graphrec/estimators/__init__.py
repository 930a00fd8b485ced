"""scikit-learn estimators over the models of this package."""

from .classifier import CTRClassifier

__all__ = ["CTRClassifier"]
