"""The networks: encoders, fusions, and what puts them together."""

from agm.models.multimodal import BlackBox, Inputs, Mask, Model, Multimodal, OnlyModality

__all__ = ["BlackBox", "Inputs", "Mask", "Model", "Multimodal", "OnlyModality"]
