"""Numbers about trained models, as pure functions: arrays in, numbers out. Nothing here knows of files or steps.

They need NumPy; what says so needs scikit-learn and SciPy, the extra `metrics`.
"""

from agm.metrics.classification import accuracy, classification_summary
from agm.metrics.competition import Competition, competition_strength
from agm.metrics.intervals import Difference, Interval, bootstrap_share, mean_interval, paired_difference
from agm.metrics.responses import Centre, constant_share

__all__ = [
    "Centre",
    "Competition",
    "Difference",
    "Interval",
    "accuracy",
    "bootstrap_share",
    "classification_summary",
    "competition_strength",
    "constant_share",
    "mean_interval",
    "paired_difference",
]
