"""Relevance as yes or no: do a model's scores tell relevant (query, item) pairs from the others? By scikit-learn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

from services.trainer.errors import JobError

_CURVE_POINTS = 200
"""As many as a plot shows."""

Curve = tuple[list[float], list[float]]


@dataclass(frozen=True, slots=True)
class Classification:
    """Measures over judged pairs, and the curves behind them."""

    threshold: float
    """Scores from here on say relevant."""
    values: dict[str, float]
    """accuracy, precision, recall, f1, roc_auc, average_precision."""
    confusion: list[list[int]]
    """[[true negative, false positive], [false negative, true positive]]."""
    pairs: int
    relevant: int
    roc: Curve
    """(false positive rate, true positive rate)."""
    precision_recall: Curve
    """(recall, precision)."""


def best_threshold(labels: Sequence[bool], scores: Sequence[float]) -> float:
    """The score that gives the best F1. Choose it on other data than it is judged on."""
    precision, recall, thresholds = metrics.precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(thresholds[min(int(f1.argmax()), len(thresholds) - 1)])


def classify(labels: Sequence[bool], scores: Sequence[float], threshold: float) -> Classification:
    """Raises `JobError` when all pairs have one label: then there is nothing to tell apart."""
    truth, values = np.asarray(labels, bool), np.asarray(scores, np.float64)
    if truth.all() or not truth.any():
        raise JobError("all judged pairs are relevant, or none is: set --relevant of prepare to a grade in between")
    said = values >= threshold
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(truth, said, average="binary", zero_division=0.0)
    false_positive, true_positive, _ = metrics.roc_curve(truth, values)
    curve_precision, curve_recall, _ = metrics.precision_recall_curve(truth, values)
    return Classification(
        threshold=threshold,
        values={
            "accuracy": float(metrics.accuracy_score(truth, said)),
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "roc_auc": float(metrics.roc_auc_score(truth, values)),
            "average_precision": float(metrics.average_precision_score(truth, values)),
        },
        confusion=metrics.confusion_matrix(truth, said).tolist(),
        pairs=len(truth),
        relevant=int(truth.sum()),
        roc=(_thin(false_positive), _thin(true_positive)),
        precision_recall=(_thin(curve_recall), _thin(curve_precision)),
    )


def _thin(curve: NDArray[np.float64]) -> list[float]:
    picked = np.linspace(0, len(curve) - 1, min(len(curve), _CURVE_POINTS)).astype(int)
    return [round(float(value), 5) for value in curve[picked]]
