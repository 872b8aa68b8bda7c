"""Reading a modality's response φ_m: what of it depends on the sample.

φ_m with masked inputs carries a constant per class, which names the same few classes for every sample: its argmax says
little about the sample. The centred response

    φ_m − mean φ_m + mean f

has the means over samples whose labels nobody looks at (here: validation) in its place. The last term keeps the prior
of unequal classes, which the first two take away.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Centre:
    """What responses are centred by.

    Attributes:
        responses: mean φ of each modality, `[C]` float64.
        output: mean f, `[C]` float64.
    """

    responses: dict[str, Array]
    output: Array

    @classmethod
    def of(cls, responses: dict[str, Array], outputs: Array) -> "Centre":
        """The means over N samples of `[N, C]` responses and outputs."""
        means = {name: phi.mean(axis=0, dtype=np.float64) for name, phi in responses.items()}
        return cls(means, outputs.mean(axis=0, dtype=np.float64))

    def centred(self, name: str, phi: Array) -> Array:
        """The centred response of modality `name`, `[N, C] → [N, C]` float64."""
        return phi - self.responses[name] + self.output


def constant_share(phi: Array) -> float:
    """Share of the spread of φ_m over classes, `[N, C]`, that is the same for every sample: 1 says nothing about
    samples.

    A constant of a sample, which all its classes have, decides no argmax and is taken out first. Of a φ_m without any
    spread the share is 1.
    """
    spread = phi - phi.mean(axis=1, dtype=np.float64, keepdims=True)
    total = np.square(spread).sum(axis=1).mean()
    return float(np.square(spread.mean(axis=0)).sum() / total) if total > 0 else 1.0
