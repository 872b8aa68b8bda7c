"""agm: train multimodal models without one modality starving the others, and measure what it costs them.

    fusion = agm.fusion.LateConcat({"audio": 128, "video": 512}, classes=10)
    model = agm.Multimodal(encoders={"audio": audio_net, "video": video_net}, fusion=fusion)
    method = agm.methods.AGM(model, alpha=1.0)
    for inputs, labels in loader:                        # inputs: {"audio": Tensor, "video": Tensor}
        loss = method.step(inputs, labels, optimizer)

    phi = agm.modality_responses(model, inputs)          # [M, B, C]: the output split among the modalities
    agm.metrics.competition_strength(z_fit, y_fit, z_test, y_test)

`agm.BlackBox` takes any network in the place of `agm.Multimodal`. The library needs torch and numpy; `agm.pipeline`,
which runs whole studies and is not imported here, needs the extra `pipeline`.

Everything is imported when it is first used: `import agm` loads nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agm import attribution, distributed, methods, metrics, models
    from agm.attribution import coalition_outputs, modality_responses, unimodal_logits
    from agm.models import BlackBox, Multimodal, fusion

__version__ = "0.1.0"

_LAZY = {
    "BlackBox": "agm.models.multimodal",
    "Multimodal": "agm.models.multimodal",
    "coalition_outputs": "agm.attribution",
    "modality_responses": "agm.attribution",
    "unimodal_logits": "agm.attribution",
}
_MODULES = {
    "attribution": "agm.attribution",
    "distributed": "agm.distributed",
    "fusion": "agm.models.fusion",
    "methods": "agm.methods",
    "metrics": "agm.metrics",
    "models": "agm.models",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'agm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY, *_MODULES])


__all__ = [
    "BlackBox",
    "Multimodal",
    "attribution",
    "coalition_outputs",
    "distributed",
    "fusion",
    "methods",
    "metrics",
    "modality_responses",
    "models",
    "unimodal_logits",
]
