"""Decode text files: UTF-8, or the encoding that a byte order mark at their beginning names."""

import codecs

# Mark, Python's name of the encoding, its common name.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),  # before UTF-16, whose mark is the beginning of this one
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)


def encoding_of(content: bytes) -> tuple[str, str]:
    """Python's name and the common name of a text's encoding; UTF-8 without a byte order mark."""
    for mark, name, common in MARKS:
        if content.startswith(mark):
            return name, common
    return "utf-8", "UTF-8"


def as_text(content: bytes) -> str:
    """The text, without a byte order mark.

    Raises:
        UnicodeDecodeError: when it is not in the encoding that its first bytes say.
    """
    encoding, _ = encoding_of(content)
    return content.decode(encoding)
