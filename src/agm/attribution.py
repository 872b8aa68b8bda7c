"""Modality responses: the model's output split among its modalities, Shapley style (Li et al., ICCV 2023, eq. 3–5).

f(S) is the output with the raw inputs of every modality outside S masked (by zeros, unless the model says otherwise),
and f(∅) := 0, so

    φ_m = Σ_{S ∌ m} |S|! (M − |S| − 1)! / M! · [f(S ∪ m) − f(S)]        and        Σ_m φ_m = f(all).

The full pass runs in the model's current mode; masked passes run in evaluation mode, with gradients.

For `agm.Multimodal` a masked input is either the sample's or the mask, so encoding each modality once in either mode,
and the mask once, gives every coalition's features: only the fusion runs on all 2^M − 1 of them. The result equals the
full masked passes to rounding. For `agm.BlackBox` the masked passes are done as they are written.

Beside them `unimodal_logits`: u_m, what the methods that came before and after call a modality's own output.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import combinations
from math import factorial

import torch
from torch import Tensor, nn

from agm.models.fusion import Additive
from agm.models.multimodal import Inputs, Model

Coalition = tuple[str, ...]


def coalitions(modalities: Sequence[str]) -> list[Coalition]:
    """Every non-empty set of modalities, smallest first: the last one is all of them."""
    subsets: list[Coalition] = []
    for size in range(1, len(modalities) + 1):
        subsets += combinations(modalities, size)
    return subsets


def shapley_weights(modalities: Sequence[str]) -> Tensor:
    """Weights W with φ = W f: `[M, 2^M − 1]` float64, columns in the order of `coalitions`."""
    return shapley_numerators(modalities).double() / factorial(len(modalities))


def shapley_numerators(modalities: Sequence[str]) -> Tensor:
    """Whole numbers: the Shapley weights over their common denominator M!, `[M, 2^M − 1]` int64."""
    count = len(modalities)
    rows = []
    for name in modalities:
        row = []
        for subset in coalitions(modalities):
            # |S|! (M − |S| − 1)! for the set S without m, which enters with a minus where it is S itself.
            others = len(subset) - 1 if name in subset else len(subset)
            weight = factorial(others) * factorial(count - others - 1)
            row.append(weight if name in subset else -weight)
        rows.append(row)
    return torch.tensor(rows)


@cache
def _weights_on(device: torch.device, dtype: torch.dtype, modalities: tuple[str, ...]) -> Tensor:
    """`shapley_weights`, copied to the device once: each copy would make the host wait for it."""
    return shapley_weights(modalities).to(device, dtype)


def modality_responses(model: Model, inputs: Inputs, *, shared: bool = False) -> Tensor:
    """φ of every modality.

    Args:
        model: `agm.Multimodal` or `agm.BlackBox`. In training mode, its full pass updates running statistics and draws
            dropout as a plain pass would.
        inputs: `{m: [B, …]}`.
        shared: take the features of the full pass for the masked ones too. Half the cost, and the same result only
            for encoders that do not tell training from evaluation (no BatchNorm, no dropout). A black box has no
            features to share.

    Returns:
        `[M, B, C]` in the order of `model.modalities`, float32 or wider.
    """
    encoded = model.encode(inputs)
    whole = model.fusion(encoded)
    subsets = coalitions(model.modalities)[:-1]
    with evaluating(model) as was_training:
        if not model.factored:
            parts = _masked_passes(model, subsets, inputs, like=whole)
        elif shared or not was_training:
            parts = _fuse_coalitions(model, subsets, encoded, absent(model, inputs), like=whole)
        else:
            present, nothing = _encode_with_masks(model, inputs)
            parts = _fuse_coalitions(model, subsets, present, nothing, like=whole)
    # Float32 at least, whatever the autocast: the coefficients of modulation are exponentials of these numbers.
    outputs = torch.cat([parts, whole.unsqueeze(0)])
    outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    weights = _weights_on(outputs.device, outputs.dtype, tuple(model.modalities))
    responses = torch.einsum("ms,sbc->mbc", weights, outputs.flatten(2) if outputs.ndim > 2 else outputs.unsqueeze(2))
    return responses.view(len(weights), *whole.shape)


def unimodal_logits(model: Model, inputs: Inputs, features: Inputs) -> Tensor:
    """u of every modality, `[M, B, C]`: its term in an additive fusion, else f with the others masked.

    Args:
        model: a fusion that is not additive runs in evaluation mode on the masked features.
        inputs: `{m: [B, …]}`.
        features: `model.encode(inputs)`, in whichever mode.
    """
    if isinstance(model.fusion, Additive):
        return model.fusion.unimodal(features)
    return coalition_outputs(model, inputs, features, [(name,) for name in model.modalities])


def coalition_outputs(model: Model, inputs: Inputs, features: Inputs, subsets: Sequence[Coalition]) -> Tensor:
    """f(S) of every subset from features that are there already, with the fusion in evaluation mode: `[S, B, C]`.

    A black box runs whole passes, in evaluation mode too.
    """
    with evaluating(model):
        if not model.factored:
            return _masked_passes(model, subsets, inputs)
        return _fuse_coalitions(model, subsets, features, absent(model, inputs))


def absent(model: Model, inputs: Inputs) -> Inputs:
    """Features of masked modalities, `[1, …]`, or `[B, …]` where the mask depends on the sample.

    In evaluation mode the features of one mask are the same for every sample. Not for encoders that see one another:
    there they depend on the other modalities.
    """
    return model.encode({name: model.masked(name, inputs[name]) for name in model.modalities})


def _encode_with_masks(model: Model, inputs: Inputs) -> tuple[Inputs, Inputs]:
    """Features of the inputs and of the masks: one pass for both, as in evaluation mode no row sees another."""
    stacked = {}
    for name in model.modalities:
        x = inputs[name]
        stacked[name] = torch.cat([x, model.masked(name, x)])
    both = model.encode(stacked)
    present = {name: h[: len(inputs[name])] for name, h in both.items()}
    nothing = {name: h[len(inputs[name]) :] for name, h in both.items()}
    return present, nothing


def _masked_passes(model: Model, subsets: Sequence[Coalition], inputs: Inputs, like: Tensor | None = None) -> Tensor:
    """f of every subset by a whole pass each: `[S, B, C]`; of no subset, an empty tensor of outputs `like` these."""
    if not subsets:
        return _no_outputs(like)
    outputs = []
    for subset in subsets:
        # What a network is given besides the modalities, such as a mask of padding, stays as it is.
        masked = dict(inputs)
        for name in model.modalities:
            if name not in subset:
                x = inputs[name]
                masked[name] = model.masked(name, x).expand_as(x)
        outputs.append(model(masked))
    return torch.stack(outputs)


def _fuse_coalitions(
    model: Model, subsets: Sequence[Coalition], present: Inputs, nothing: Inputs, like: Tensor | None = None
) -> Tensor:
    """f of every subset, stacked into one call of the fusion: `[S, B, C]`."""
    if not subsets:
        return _no_outputs(like)
    stacked = {}
    for name, h in present.items():
        stacked[name] = torch.cat([h if name in subset else nothing[name].expand_as(h) for subset in subsets])
    batch = len(next(iter(present.values())))
    outputs: Tensor = model.fusion(stacked)
    return outputs.unflatten(0, (len(subsets), batch))


def _no_outputs(like: Tensor | None) -> Tensor:
    if like is None:
        raise ValueError("expected a coalition of modalities, found none")
    return like.new_empty(0, *like.shape)


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
