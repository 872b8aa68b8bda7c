"""Text files as they are written: UTF-8, or what a byte order mark at their head says."""

import codecs

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)


def encoding_of(content: bytes) -> tuple[str, str]:
    """Python's name and the common name of a text's encoding; UTF-8 without a byte order mark."""
    return next(((name, common) for mark, name, common in MARKS if content.startswith(mark)), ("utf-8", "UTF-8"))


def as_text(content: bytes) -> str:
    """The text, without a byte order mark.

    Raises:
        UnicodeDecodeError: when it is not in the encoding that its first bytes say.
    """
    return content.decode(encoding_of(content)[0])
