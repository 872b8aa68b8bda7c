"""The mono-modal outputs of a pass, written out without the package's own attribution."""

import torch
from torch import Tensor

from agm.models.multimodal import Multimodal


def own_outputs(
    model: Multimodal, inputs: dict[str, Tensor], whole_bias: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """f and u_m, `[B, C]` each, with gradients: what a method sees in its pass, one modality after the other.

    u_m is W_m h_m and the modality's part of the bias or the whole of it, or the output with the other inputs zero,
    which the fusion gives in evaluation mode from the features of this pass.
    """
    features = {name: encoder(inputs[name]) for name, encoder in model.encoders.items()}
    whole, own, start = model.fusion(features), {}, 0
    for name, h in features.items():
        stop = start + h.shape[1]
        if hasattr(model.fusion, "heads"):
            own[name] = h @ model.fusion.heads[name].weight.T + model.fusion.heads[name].bias
        elif model.fusion.additive:
            layer = model.fusion.classifier
            own[name] = h @ layer.weight[:, start:stop].T + layer.bias / (1 if whole_bias else len(features))
        else:
            modes = {module: module.training for module in model.modules()}
            model.eval()
            zeros = {each: model.encoders[each](torch.zeros_like(inputs[each])) for each in features}
            own[name] = model.fusion(
                {each: h if each == name else zeros[each].expand_as(features[each]) for each in features}
            )
            for module, mode in modes.items():
                module.training = mode
        start = stop
    return whole, own
