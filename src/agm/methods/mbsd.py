"""MBSD, multimodal balanced self-distillation, as in BalanceBenchmark: Xu et al., 'BalanceBenchmark: A Survey for
Multimodal Imbalance Learning', arXiv 2025.

With u_m the unimodal logits, p_m = softmax(u_m), and for each sample i of a pair of modalities s the one with the
larger p[y_i] and w the other:

    weight_i = p_s[y_i] − p_w[y_i]  where one of the two is right, else 0
    RS_i = mean over the classes of (u_s − u_w)²
    KL_i = Σ_c p_w (log p_w − log p_s)
    loss = CE(f) + Σ_m CE(u_m) + mean_i weight_i RS_i + mean_i weight_i KL_i

With more than two modalities RS is taken on p instead of u, and the last two terms are means over the pairs.

Deviations:
- KL is the divergence between the two softmaxes. The published term has the two probabilities of the right class for
  distributions, and a probability where its logarithm belongs: p_w[y] (log p_w[y] − p_s[y]).
- The weight is a number: no gradient flows through it. Published, the loss could also be lowered by what shrinks the
  weight, the difference of the modalities.
"""

from itertools import combinations

import torch
from torch import Tensor

from agm.attribution import unimodal_logits
from agm.methods.method import Method
from agm.models.multimodal import Inputs


class MBSD(Method):
    """MBSD for any number of modalities and any model."""

    classification = True

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        features = self.model.encode(inputs)
        joint = self.mean_loss(self.model.fusion(features), targets)
        logits = unimodal_logits(self.model, inputs, features)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # whatever the autocast
        loss = joint + self.sum_of_losses(logits, targets)
        if len(logits) == 1:
            return loss
        distances = [distance(torch.stack(pair), targets, len(logits) > 2) for pair in combinations(logits, 2)]
        return loss + torch.stack(distances).mean()


def distance(logits: Tensor, labels: Tensor, of_shares: bool) -> Tensor:
    """mean_i weight_i (RS_i + KL_i) of one pair, `[2, B, C]` and `[B]` to `[]`.

    Args:
        of_shares: whether RS is taken on the softmaxes.
    """
    shares = logits.log_softmax(dim=2)
    chosen = shares.detach().exp()[:, torch.arange(len(labels), device=labels.device), labels]
    right = (logits.argmax(dim=2) == labels).any(dim=0)
    weight = (chosen[0] - chosen[1]).abs() * right
    values = shares.exp() if of_shares else logits
    square = (values[0] - values[1]).square().mean(dim=1)
    # From the one with the larger probability of the label to the other.
    if_first = (shares[1].exp() * (shares[1] - shares[0])).sum(dim=1)
    if_second = (shares[0].exp() * (shares[0] - shares[1])).sum(dim=1)
    divergence = torch.where(chosen[0] >= chosen[1], if_first, if_second)
    return (weight * (square + divergence)).mean()
