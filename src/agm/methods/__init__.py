"""The methods, a file each: joint training and its rivals, in one form (`agm.methods.method.Method`).

    method = agm.methods.AGM(model, alpha=1.0)
    loss = method.step(inputs, labels, optimizer)

`METHODS` lists them; `get` gives the class of a name.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agm.methods.agm import AGM
    from agm.methods.amco import AMCo
    from agm.methods.arl import ARL
    from agm.methods.bml import BML
    from agm.methods.cml import CML
    from agm.methods.g_blending import GBlending
    from agm.methods.greedy import Greedy
    from agm.methods.inforeg import InfoReg
    from agm.methods.joint import Joint
    from agm.methods.lfm import LFM
    from agm.methods.mbsd import MBSD
    from agm.methods.method import Method
    from agm.methods.mla import MLA
    from agm.methods.mmcosine import MMCosine
    from agm.methods.mmpareto import MMPareto
    from agm.methods.modality_valuation import ModalityValuation
    from agm.methods.mses import MSES
    from agm.methods.mslr import MSLR
    from agm.methods.ogm import OGM
    from agm.methods.ogm_ge import OGMGE
    from agm.methods.opm import OPM
    from agm.methods.parameters import Window
    from agm.methods.pmr import PMR
    from agm.methods.reconboost import ReconBoost
    from agm.methods.relearning import Relearning
    from agm.methods.sample_valuation import SampleValuation
    from agm.methods.umt import UMT

METHODS = {
    "agm": "AGM",
    "amco": "AMCo",
    "arl": "ARL",
    "bml": "BML",
    "cml": "CML",
    "g_blending": "GBlending",
    "greedy": "Greedy",
    "inforeg": "InfoReg",
    "joint": "Joint",
    "lfm": "LFM",
    "mbsd": "MBSD",
    "mla": "MLA",
    "mmcosine": "MMCosine",
    "mmpareto": "MMPareto",
    "modality_valuation": "ModalityValuation",
    "mses": "MSES",
    "mslr": "MSLR",
    "ogm": "OGM",
    "ogm_ge": "OGMGE",
    "opm": "OPM",
    "pmr": "PMR",
    "reconboost": "ReconBoost",
    "relearning": "Relearning",
    "sample_valuation": "SampleValuation",
    "umt": "UMT",
}
"""The class of each method, by the name of its file: the name in a configuration. A file is imported when its class is
asked for."""

PREREQUISITES = {"g_blending": ("histories",), "umt": ("teachers",)}
"""Of methods that read finished runs, the arguments of their constructors that come from these. A graph of jobs is made
without importing any method."""

_LAZY = {name: module for module, name in METHODS.items()} | {"Method": "method", "Window": "parameters"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])


def get(name: str) -> "type[Method]":
    """The class of the method of that name.

    Raises:
        KeyError: when there is none.
    """
    method: type[Method] = __getattr__(METHODS[name])
    return method


__all__ = [
    "AGM",
    "ARL",
    "BML",
    "CML",
    "LFM",
    "MBSD",
    "METHODS",
    "MLA",
    "MSES",
    "MSLR",
    "OGM",
    "OGMGE",
    "OPM",
    "PMR",
    "PREREQUISITES",
    "UMT",
    "AMCo",
    "GBlending",
    "Greedy",
    "InfoReg",
    "Joint",
    "MMCosine",
    "MMPareto",
    "Method",
    "ModalityValuation",
    "ReconBoost",
    "Relearning",
    "SampleValuation",
    "Window",
    "get",
]
