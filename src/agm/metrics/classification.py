"""Accuracy and F1, in total and class by class."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agm.extras import require

Array = NDArray[Any]


def accuracy(scores: Array, labels: Array) -> float:
    """Share of samples whose highest score is their label's: `[N, C]` and `[N]`."""
    return float((scores.argmax(axis=1) == labels).mean())


def classification_summary(scores: Array, labels: Array, classes: list[str]) -> dict[str, Any]:
    """Accuracy, macro F1, weighted F1 and a table per class, from `[N, C]` scores and `[N]` labels.

    A class without samples or without predictions has precision, recall and F1 of 0; macro F1 is the mean over all
    classes, weighted F1 that over the samples, each of which counts its class's.
    """
    metrics = require("sklearn.metrics", "metrics")
    columns = metrics.precision_recall_fscore_support(
        labels, scores.argmax(axis=1), labels=np.arange(len(classes)), zero_division=0
    )
    table = [
        {
            "class": name,
            "clips": int(clips),
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
        }
        for name, precision, recall, f1, clips in zip(classes, *columns, strict=True)
    ]
    return {
        "clips": len(labels),
        "accuracy": accuracy(scores, labels),
        "macro_f1": float(np.mean([row["f1"] for row in table])),
        "weighted_f1": sum(row["clips"] * row["f1"] for row in table) / len(labels),
        "classes": table,
    }
