"""Which modality of one fusion is starved: the numbers behind the words of the answer.

A modality is called starved when the accuracy of its centred response φ_m in joint training lies at least `STARVED`
below the accuracy of the network trained on it alone, and the interval of that gap excludes zero. With a gap of that
size but too few seeds to tell, it 'looks' starved. The report says that no modality is starved only where every
interval ends below `STARVED`. A modality is not judged where the network trained on it alone may know no more than
the largest class.

Where runs failed, two numbers are compared over the seeds that both have. What has no such seed is not judged.
"""

from agm.metrics.intervals import Difference
from agm.pipeline.steps.report.collect import Study
from agm.pipeline.steps.report.results import Results, Values

STARVED = 0.10


class Starvation:
    """The gaps of all modalities of one fusion in joint training.

    Attributes:
        study: the study that is reported.
        results: its numbers.
        fusion: the fusion that is judged.
        baseline: the method of joint training.
        modalities: all modalities of the study.
        methods: the compared methods without the baseline.
        gaps: for each modality that can be judged, how far its centred φ accuracy lies below that of the network
            trained on it alone.
        unknown: the modalities that cannot be judged.
        uninformed: those of the unknown ones whose network alone may only know the largest class.
        starved: the modalities whose gap is `STARVED` or more.
        target: the modality with the largest gap; None where no modality can be judged.
    """

    def __init__(self, study: Study, results: Results, fusion: str, baseline: str) -> None:
        self.study, self.results, self.fusion, self.baseline = study, results, fusion, baseline
        self.modalities = study.params.study.modalities
        self.methods = [name for name in study.params.study.methods if name != baseline]
        # None: runs failed, or the network trained on the modality alone knows nothing to compare with.
        self.gaps: dict[str, Difference] = {}
        self.unknown: list[str] = []
        for name in self.modalities:
            gap = results.gap(fusion, baseline, name)
            if gap is None:
                self.unknown.append(name)
            else:
                self.gaps[name] = gap
        self.uninformed = [name for name in self.unknown if (fusion, name) in results.uninformed]
        # By the mean alone: whether the seeds are enough to be certain is said in words.
        self.starved = [name for name, gap in self.gaps.items() if gap.mean >= STARVED]
        self.target = max(self.gaps, key=lambda name: self.gaps[name].mean, default=None)

    def values(self, method: str, metric: str, modality: str | None = None) -> Values:
        """A method's numbers by seed."""
        return self.results.method(self.fusion, method, metric, modality)

    def drops(self) -> dict[str, Difference] | None:
        """What the baseline's accuracy loses when each modality is permuted; None where one of them is unknown."""
        drops = {}
        for name in self.modalities:
            drop = self.results.drop(self.fusion, self.baseline, name)
            if drop is None:
                return None
            drops[name] = drop
        return drops

    def is_significant(self, difference: Difference) -> bool:
        """Whether the paired test excludes chance at the confidence of the study."""
        return difference.p is not None and difference.p < 1 - self.results.confidence

    def failures(self, method: str | None = None, concept: str | None = None) -> int:
        """How many seeds of a method or concept failed."""
        return self.results.seeds - len(self.study.succeeded(self.fusion, method, concept))


def excludes_zero(gap: Difference) -> bool:
    """Whether the whole interval of a gap lies above zero."""
    return gap.low is not None and gap.low > 0
