"""Mono-modal responses: the model's output split among its modalities, Shapley style (Li et al., ICCV 2023, eq. 3–5).

f(S) are the logits with the raw inputs of every modality outside S replaced by zeros, and f(∅) := 0, so

    φ_m = Σ_{S ∌ m} |S|! (M − |S| − 1)! / M! · [f(S ∪ m) − f(S)]        and        Σ_m φ_m = f(all).

The full pass runs in the model's current mode; masked passes run in evaluation mode, with gradients. A masked input is
either the clip's or zero, so encoding each modality once in either mode, and one zero sample, gives every coalition's
features: only the fusion runs on all 2^M − 1 of them. The result equals the full masked passes to rounding.

Beside them `mono_modal_logits`: u_m, what the methods that came before and after call a modality's own output.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
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
    return shapley_numerators(modalities).double() / factorial(len(modalities))


def shapley_numerators(modalities: list[str]) -> Tensor:
    """Whole numbers: the Shapley weights over their common denominator M!, `[M, 2^M − 1]` int64."""
    count = len(modalities)

    def weight(others: int) -> int:
        return factorial(others) * factorial(count - others - 1)

    rows = [
        [weight(len(subset) - 1) if name in subset else -weight(len(subset)) for subset in coalitions(modalities)]
        for name in modalities
    ]
    return torch.tensor(rows)


@cache
def _weights_on(device: torch.device, dtype: torch.dtype, modalities: tuple[str, ...]) -> Tensor:
    """`shapley_weights`, copied to the device once: each copy would make the host wait for it."""
    return shapley_weights(list(modalities)).to(device, dtype)


def mono_modal_responses(model: MultimodalModel, inputs: Inputs, shared: bool = False) -> Tensor:
    """φ of every modality, `[M, B, C]` float32 or wider, in the order of `model.modalities`.

    Args:
        model: in training mode, its full pass updates running statistics and draws dropout as a plain pass would.
        inputs: prepared inputs, `{m: [B, …]}`.
        shared: take the features of the full pass for the masked ones too. Half the cost, and the same result only
            for encoders that do not tell training from evaluation (no BatchNorm, no dropout).
    """
    encoded = model.encode(inputs)
    whole = model.fusion(encoded)
    subsets = coalitions(model.modalities)[:-1]
    with evaluating(model) as was_training:
        if model.exchange is not None:
            parts = _masked_passes(model, subsets, inputs)
        elif shared or not was_training:
            parts = _fuse_coalitions(model, subsets, encoded, absent(model, inputs))
        else:
            # One pass for the clips and the zero sample behind them: in evaluation mode no row sees another.
            both = model.encode({name: torch.cat([x, torch.zeros_like(x[:1])]) for name, x in inputs.items()})
            present, nothing = ({name: h[rows] for name, h in both.items()} for rows in (slice(-1), slice(-1, None)))
            parts = _fuse_coalitions(model, subsets, present, nothing)
    # Float32 at least, whatever the autocast: the coefficients of modulation are exponentials of what comes of it.
    outputs = torch.cat([parts, whole.unsqueeze(0)])
    outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    weights = _weights_on(outputs.device, outputs.dtype, tuple(model.modalities))
    return torch.einsum("ms,sbc->mbc", weights, outputs)


def mono_modal_logits(model: MultimodalModel, inputs: Inputs, features: Inputs) -> Tensor:
    """u of every modality, `[M, B, C]`: the part of an additive fusion that it has, else f with the others masked.

    Args:
        model: a fusion that is not additive runs in evaluation mode on the masked features.
        inputs: prepared inputs.
        features: `model.encode(inputs)`, in whichever mode.
    """
    if model.fusion.additive:
        return model.fusion.mono_modal(features)
    return coalition_logits(model, inputs, features, [(name,) for name in model.modalities])


def coalition_logits(
    model: MultimodalModel, inputs: Inputs, features: Inputs, subsets: list[tuple[str, ...]]
) -> Tensor:
    """f(S) of every subset from features that are there already, with the fusion in evaluation mode: `[S, B, C]`."""
    with evaluating(model):
        if model.exchange is not None:
            return _masked_passes(model, subsets, inputs)
        return _fuse_coalitions(model, subsets, features, absent(model, inputs))


def absent(model: MultimodalModel, inputs: Inputs) -> Inputs:
    """E(0) of every modality, `[1, …]`: in evaluation mode the same for every clip, so one sample is enough.

    Not for encoders that see one another: there it depends on what the others are.
    """
    return model.encode({name: torch.zeros_like(x[:1]) for name, x in inputs.items()})


def _masked_passes(model: MultimodalModel, subsets: list[tuple[str, ...]], inputs: Inputs) -> Tensor:
    """f of every subset by a whole pass each, for encoders that see one another: `[S, B, C]`."""
    first = next(iter(inputs.values()))
    masked = ({name: x if name in subset else torch.zeros_like(x) for name, x in inputs.items()} for subset in subsets)
    outputs = [model(each) for each in masked]
    return torch.stack(outputs) if outputs else torch.empty(0, len(first), model.fusion.classes, device=first.device)


def _fuse_coalitions(
    model: MultimodalModel, subsets: list[tuple[str, ...]], present: Inputs, nothing: Inputs
) -> Tensor:
    """f of every subset, stacked into one call of the fusion: `[S, B, C]`."""
    batch = len(next(iter(present.values())))
    if not subsets:
        return next(iter(present.values())).new_empty(0, batch, model.fusion.classes)
    stacked = {
        name: torch.cat([h if name in subset else nothing[name].expand_as(h) for subset in subsets])
        for name, h in present.items()
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
