"""BML, on-the-fly modulation of predictions and of gradients together: Wei et al., 'On-the-fly Modulation for Balanced
Multimodal Learning', IEEE TPAMI, 2024.

In the same step features are left out as in `opm` and the encoders' gradients multiplied by k_m as in `ogm`, both from
the same ratios ρ_m.

Deviations: those of `opm` and `ogm`.
"""

from torch import Tensor

from agm.distributed import LossFunction, cross_entropy
from agm.methods.ogm import OGM, coefficients, ratios, scores
from agm.methods.opm import dropped, probabilities
from agm.methods.parameters import NonNegative, Probability, Window
from agm.models.multimodal import Inputs, Model


class BML(OGM):
    """OPM and OGM for any number of modalities; outside the window of epochs it is plain joint training.

    Args:
        alpha: strength of the modulation of gradients; 0 is OPM.
        base: q, how often the feature of a modality that is hardly better than the others is left out.
        strength: λ, how much more often that of one far better is.
        share: p, share of the steps that leave anything out.
        window: epochs of modulation.
    """

    needs_features = True
    modulates_encoders = False

    def __init__(
        self,
        model: Model,
        *,
        loss_fn: LossFunction = cross_entropy,
        alpha: NonNegative = 0.8,
        base: Probability = 0.5,
        strength: NonNegative = 0.5,
        share: Probability = 0.7,
        window: Window = Window(first=6),
    ) -> None:
        super().__init__(model, loss_fn=loss_fn, alpha=alpha, window=window)
        self.base, self.strength, self.share = base, strength, share

    def modulated_loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        features = self.model.encode(inputs)
        score = scores(self.model, inputs, features, targets)
        ratio = ratios(score)
        self.coefficient = coefficients(ratio, self.alpha)
        drop = probabilities(ratio, self.base, self.strength)
        self.report(coefficient=self.coefficient, drop=drop, score=score, ratio=ratio)
        return self.mean_loss(self.model.fusion(dropped(features, drop, self.share)), targets)
