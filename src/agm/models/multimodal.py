"""The models that attribution and methods work with.

Three kinds, each an `nn.Module` that maps `{modality: [B, …]}` to outputs `[B, C]`:

    Multimodal     an encoder per modality and a fusion: a masked modality's features are computed once (fast, exact)
    BlackBox       any network: a masked modality is a masked input, and a whole forward pass
    OnlyModality   a network that sees one modality and masks the others, always
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from agm.models.fusion import Additive, Fusion

Inputs = dict[str, Tensor]
"""A tensor per modality, `{m: [B, …]}`."""
MaskValue = float | Tensor | Callable[[Tensor], Tensor]
"""What stands in the place of a masked input: a number, a tensor `[…]` of one sample, or a function of the input
`[B, …]` to `[1, …]` (the same for every sample) or `[B, …]`."""
Mask = MaskValue | Mapping[str, MaskValue] | nn.ParameterDict | nn.ModuleDict
"""One for all modalities, or one per modality; a modality that is not named is masked by zeros. A parameter, a module,
and those in an `nn.ParameterDict` or `nn.ModuleDict`, are trained with the model."""


class Model(nn.Module):
    """What attribution and methods need of a model.

    Attributes:
        modalities: names of the modalities, in the order of every `[M, …]` tensor.
        encoders: the module of each modality whose weights belong to it alone; a black box may have none.
        fusion: features to outputs.
        mask: what stands in the place of a masked input.
    """

    modalities: list[str]
    encoders: Mapping[str, nn.Module] | nn.ModuleDict
    fusion: nn.Module
    # No default here: it would hide a parameter or a module of that name.
    mask: Mask

    @property
    def factored(self) -> bool:
        """Whether the features of a modality depend on its own input only: then it need not be encoded again for each
        coalition of modalities."""
        return False

    @property
    def additive(self) -> bool:
        """Whether the output is a sum of terms, one for each modality: `fusion` is then an `Additive`."""
        return isinstance(self.fusion, Additive)

    def encode(self, inputs: Inputs) -> Inputs:
        """Inputs to features, `{m: [B, …]} → {m: [B, D_m]}`."""
        raise NotImplementedError

    def forward(self, inputs: Inputs) -> Tensor:
        """Inputs `{m: [B, …]}` to outputs `[B, C]`."""
        outputs: Tensor = self.fusion(self.encode(inputs))
        return outputs

    def own_part(self, modality: str) -> nn.ModuleList:
        """The modules in which no other modality has a share: the encoder and, where there is one, the classifier that
        reads nothing but this modality."""
        own = [self.encoders[modality]]
        if isinstance(self.fusion, Fusion):
            own += self.fusion.own_classifier(modality)
        return nn.ModuleList(own)

    def masked(self, modality: str, x: Tensor) -> Tensor:
        """The input of a masked modality, of the type of x `[B, …]`: `[1, …]` where all samples share it, else
        `[B, …]`."""
        value: Any = self.mask
        if isinstance(value, Mapping | nn.ParameterDict | nn.ModuleDict):
            # An `nn.ModuleDict` has no `get`.
            named = dict(value.items())
            value = named.get(modality, 0.0)
        if callable(value):
            replaced: Tensor = value(x).to(x)
            if replaced.shape[1:] != x.shape[1:] or len(replaced) not in (1, len(x)):
                wanted = f"{list(x.shape)}, or {[1, *x.shape[1:]]} for all samples alike"
                raise ValueError(f"the mask of {modality} has the shape {list(replaced.shape)}, expected {wanted}")
            return replaced
        if isinstance(value, Tensor):
            return value.to(x).expand(1, *x.shape[1:])
        return torch.full_like(x[:1], value)


class Multimodal(Model):
    """An encoder per modality and a fusion: `{m: [B, …]} → [B, C]`.

    Args:
        encoders: by modality, `[B, …] → [B, D_m]`, or `[B, T_m, D_m]` for a fusion of sequences.
        fusion: `{m: [B, D_m]} → [B, C]`, such as `agm.fusion.LateConcat`.
        mask: what stands in the place of a masked input.

    Attributes:
        exchange: a module that lets the encoders see each other on the way, `(encoders, inputs) → features`; None,
            with encoders that do not, for every method but `Greedy`.
    """

    exchange: nn.Module | None
    encoders: nn.ModuleDict
    fusion: Fusion

    def __init__(self, encoders: Mapping[str, nn.Module], fusion: Fusion, *, mask: Mask = 0.0) -> None:
        super().__init__()
        if not isinstance(fusion, Fusion):
            kind = type(fusion).__name__
            raise TypeError(f"expected an agm.fusion.Fusion, found {kind}: subclass it, or use agm.BlackBox")
        if list(encoders) != list(fusion.dims):
            raise ValueError(f"expected an encoder for each of {list(fusion.dims)}, found {list(encoders)}")
        # Not a class attribute: that would hide the module set here later.
        self.exchange = None
        self.encoders = nn.ModuleDict(encoders)
        self.fusion = fusion
        self.mask = mask

    @property
    def modalities(self) -> list[str]:  # type: ignore[override]
        return list(self.encoders)

    @property
    def factored(self) -> bool:
        return self.exchange is None

    def encode(self, inputs: Inputs) -> Inputs:
        if self.exchange is not None:
            features: Inputs = self.exchange(self.encoders, inputs)
            return features
        return {name: encoder(inputs[name]) for name, encoder in self.encoders.items()}


class BlackBox(Model):
    """Any network, of which only inputs and outputs are known: `{m: [B, …]} → [B, C]`.

    Args:
        network: called with the dictionary of inputs.
        modalities: the keys of that dictionary.
        output: where the logits are in what the network returns: a key or an attribute of a dictionary or an object
            (such as "logits" of a Hugging Face `ModelOutput`), a place in a tuple, or a function of what it returns.
            None: the network returns the tensor itself.
        encoders: by modality, the modules of the network whose weights belong to this modality alone; for methods that
            change the gradients of encoders.
        unpack: whether the network takes the inputs as keyword arguments.
        mask: what stands in the place of a masked input.
    """

    def __init__(
        self,
        network: nn.Module,
        modalities: Sequence[str],
        *,
        output: str | int | Callable[[Any], Tensor] | None = None,
        encoders: Mapping[str, nn.Module] = MappingProxyType({}),
        unpack: bool = False,
        mask: Mask = 0.0,
    ) -> None:
        super().__init__()
        unknown = [name for name in encoders if name not in modalities]
        if unknown:
            raise ValueError(f"encoders names {unknown}, and the modalities are {list(modalities)}")
        self.modalities = list(modalities)
        self.fusion = _Whole(network, output, unpack)
        # A plain dictionary: its modules are registered in the network already.
        self.encoders = dict(encoders)
        self.mask = mask

    def encode(self, inputs: Inputs) -> Inputs:
        """The inputs themselves: nothing is known of what becomes of them."""
        return inputs


class _Whole(nn.Module):
    """A network from inputs to outputs, in the place of a fusion."""

    def __init__(self, network: nn.Module, output: str | int | Callable[[Any], Tensor] | None, unpack: bool) -> None:
        super().__init__()
        self.network, self.output, self.unpack = network, output, unpack

    def forward(self, inputs: Inputs) -> Tensor:
        returned = self.network(**inputs) if self.unpack else self.network(inputs)
        outputs = self._pick(returned)
        if not isinstance(outputs, Tensor):
            kind = type(outputs).__name__
            raise TypeError(f"the network returns a {kind}: say where its logits are, BlackBox(…, output=…)")
        return outputs

    def _pick(self, returned: Any) -> Any:
        if self.output is None:
            return returned
        if callable(self.output):
            return self.output(returned)
        if isinstance(self.output, str) and not isinstance(returned, Mapping):
            return getattr(returned, self.output)
        return returned[self.output]


class OnlyModality(Model):
    """A multimodal network that sees one modality only: the other inputs are masked, in training and after."""

    def __init__(self, model: Multimodal, modality: str) -> None:
        super().__init__()
        self.model = model
        self.modality = modality

    @property
    def fusion(self) -> Fusion:  # type: ignore[override]
        return self.model.fusion

    @property
    def encoders(self) -> nn.ModuleDict:  # type: ignore[override]
        return self.model.encoders

    @property
    def modalities(self) -> list[str]:  # type: ignore[override]
        return self.model.modalities

    def masked(self, modality: str, x: Tensor) -> Tensor:
        return self.model.masked(modality, x)

    def encode(self, inputs: Inputs) -> Inputs:
        seen = {}
        for name, x in inputs.items():
            seen[name] = x if name == self.modality else self.model.masked(name, x).expand_as(x)
        return self.model.encode(seen)
