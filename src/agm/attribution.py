"""Mono-modal responses: the model's output split among its modalities, Shapley style (Li et al., ICCV 2023, eq. 3–5).

f(S) are the logits with the raw inputs of every modality outside S replaced by zeros, and f(∅) := 0, so

    φ_m = Σ_{S ∌ m} |S|! (M − |S| − 1)! / M! · [f(S ∪ m) − f(S)]        and        Σ_m φ_m = f(all).

The full pass runs in the model's current mode; masked passes run in evaluation mode, with gradients. A masked input is
either the clip's or zero, so encoding each modality once in either mode, and one zero sample, gives every coalition's
features: only the fusion runs on all 2^M − 1 of them. The result equals the full masked passes to rounding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from math import factorial

import torch
from torch import Tensor, nn

from agm.models.multimodal import Inputs, MultimodalModel


def coalitions(modalities: list[str]) -> list[tuple[str, ...]]:
    """Every non-empty set of modalities, smallest first: the last one is all of them."""
    return [subset for size in range(1, len(modalities) + 1) for subset in combinations(modalities, size)]


def shapley_weights(modalities: list[str]) -> Tensor:
    """Weights W with φ = W f: `[M, 2^M − 1]` float64, columns in the order of `coalitions`."""
    count = len(modalities)

    def weight(others: int) -> float:
        return factorial(others) * factorial(count - others - 1) / factorial(count)

    rows = [
        [weight(len(subset) - 1) if name in subset else -weight(len(subset)) for subset in coalitions(modalities)]
        for name in modalities
    ]
    return torch.tensor(rows, dtype=torch.float64)


def mono_modal_responses(model: MultimodalModel, inputs: Inputs) -> Tensor:
    """φ of every modality, `[M, B, C]` float32 or wider, in the order of `model.modalities`.

    Args:
        model: in training mode, its full pass updates running statistics and draws dropout as a plain pass would.
        inputs: prepared inputs, `{m: [B, …]}`.
    """
    modalities = model.modalities
    encoded = model.encode(inputs)
    whole = model.fusion(encoded)
    with evaluating(model) as was_training:
        features = model.encode(inputs) if was_training else encoded
        # In evaluation mode the feature of a zero input is the same for every clip: one sample is enough.
        nothing = model.encode({name: torch.zeros_like(x[:1]) for name, x in inputs.items()})
        parts = _fuse_coalitions(model, coalitions(modalities)[:-1], features, nothing)
    # Float32 at least, whatever the autocast: the coefficients of modulation are exponentials of what comes of it.
    outputs = torch.cat([parts, whole.unsqueeze(0)])
    outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    weights = shapley_weights(modalities).to(outputs)
    return torch.einsum("ms,sbc->mbc", weights, outputs)


def _fuse_coalitions(model: MultimodalModel, subsets: list[tuple[str, ...]], present: Inputs, absent: Inputs) -> Tensor:
    """f of every subset, stacked into one call of the fusion: `[S, B, C]`."""
    batch = len(next(iter(present.values())))
    if not subsets:
        return next(iter(present.values())).new_empty(0, batch, model.fusion.classifiers[0].out_features)
    stacked = {
        name: torch.cat([present[name] if name in subset else absent[name].expand(batch, -1) for subset in subsets])
        for name in present
    }
    return model.fusion(stacked).unflatten(0, (len(subsets), batch))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[bool]:
    """Evaluation mode for a while; yields whether the model was training. Every module's own mode comes back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield modes[model]
    finally:
        for module, mode in modes.items():
            module.training = mode
