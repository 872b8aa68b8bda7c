"""What all blocks of parameters are made of."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from agm.pipeline.errors import meant

LONGEST_NAME = 64
"""Names are put together to those of folders, stages and jobs. File systems allow 255 bytes."""


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", text) or len(text) > LONGEST_NAME:
        shown = text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…"
        raise ValueError(
            f"expected a name: at most {LONGEST_NAME} lower case letters, digits and _, a letter first; found {shown!r}"
        )
    return text


def _path(text: str) -> str:
    if not text or re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError(f"expected a path without control characters, found {text!r}")
    return text


Name = Annotated[str, AfterValidator(_name)]
"""A name becomes a folder, a word of a command line and a part of a stage's name: nothing that a shell or a file system
reads as more than a name, and no two that differ only in case."""
PathText = Annotated[str, AfterValidator(_path)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0)]


class Block(BaseModel):
    """A block of parameters: immutable, with no key that is not listed.

    The text below a field says what it means, to whoever reads the source. No program asks for it, so pydantic is not
    told to collect these texts (`use_attribute_docstrings`): for that it parses the source of every class, at the start
    of every command.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _say_what_was_meant(cls, content: Any) -> Any:
        """Refuse unknown keys, with the known one that is most alike."""
        if cls.model_config["extra"] != "forbid" or not isinstance(content, dict):
            return content
        errors = []
        for key, value in content.items():
            if key not in cls.model_fields:
                error = PydanticCustomError(
                    "unknown_key", "unknown key{meant}", {"meant": meant(key, cls.model_fields)}
                )
                errors.append(InitErrorDetails(type=error, loc=(key,), input=value))
        if errors:
            raise ValidationError.from_exception_data(cls.__name__, errors)
        return content
