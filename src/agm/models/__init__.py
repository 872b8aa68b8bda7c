"""The networks: an encoder per modality, a fusion, and the two put together."""

from agm.models.multimodal import MultimodalModel, OnlyModality, build_concept, build_joint

__all__ = ["MultimodalModel", "OnlyModality", "build_concept", "build_joint"]
