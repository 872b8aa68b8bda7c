"""Read the cells of tables by the same rules in every column, so that two spellings of one thing do not become two.

1. Text is brought into Unicode's composed form (NFC), without invisible characters, and with one space for any white
   space between words. Paths of files are an exception: the file system decides how they are written.
2. An empty cell is a missing value, and so is one of `MISSING`, the spellings that pandas reads as missing.
3. In a column of categories (label, group, split) a whole number has one meaning in every spelling: 1, 01, +1 and 1.0
   are 1. The same holds for the two truth values: TRUE, True and true are true.

Everything else means what is written: `joy` and `Joy` are two classes. `look_alikes` warns of such names.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable

MISSING = frozenset(
    (
        *("", "NA", "N/A", "n/a", "#NA", "#N/A", "#N/A N/A", "<NA>", "NULL", "null", "None"),
        *("NaN", "nan", "-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
    )
)
INTEGER = re.compile(r"[+-]?[0-9]+")
WHOLE = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")
TRUTH = re.compile("true|false", re.IGNORECASE)
# Soft hyphens, zero-width spaces, marks of direction, byte order marks; but not joiners (U+200C, U+200D), which belong
# to words.
INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
JOINERS = re.compile("[\u200c\u200d]")
PARTS = re.compile(r"[^\W\d_]+|\d+|[^\w\s.-]")
MOST_DIGITS = 4000
"""Python refuses to turn longer numerals into numbers."""
MOST_SHOWN = 10


def plain(cell: str) -> str:
    """The text of a cell by rules 1 and 2; empty for a missing value."""
    text = " ".join(unicodedata.normalize("NFC", INVISIBLE.sub("", cell)).split())
    return "" if text in MISSING else text


def category(cell: str) -> str:
    """The category that a cell names, by all three rules; empty for a missing value."""
    text = plain(cell)
    whole = WHOLE.fullmatch(text)
    if whole and len(text) < MOST_DIGITS:
        return str(int(whole[1]))
    if TRUTH.fullmatch(text):
        return text.lower()
    return text


def look_alikes(column: str, names: Iterable[str]) -> list[str]:
    """Warnings of different categories that a person may mean as one, and of names that look like a missing value.

    Args:
        column: the name of the column, for the message.
        names: the category of each clip.
    """
    counts = Counter(names)
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in sorted(counts):
        alike[_likeness(name)].append(name)
    warnings = []
    for group in alike.values():
        if len(group) > 1:
            shown = " and ".join(_counted(name, counts) for name in group)
            warnings.append(f"{column}: {shown} look alike; if they are one, spell them alike")
    no_values = {spelling.casefold() for spelling in MISSING}
    for name in sorted(counts):
        if name.casefold() in no_values:
            warnings.append(f"{column}: {_counted(name, counts)} looks like a missing value; it is taken for a name")
    if len(warnings) > MOST_SHOWN:
        warnings[MOST_SHOWN:] = [f"{column}: {len(warnings) - MOST_SHOWN} more names look alike"]
    return warnings


def _counted(name: str, counts: Counter[str]) -> str:
    """'joy' (12 clips)."""
    return f"{name!r} ({counts[name]:,} clip{'' if counts[name] == 1 else 's'})"


def _likeness(name: str) -> tuple[str, ...]:
    """A key that names share if they differ only in case, width, separators or leading zeros."""
    if INTEGER.fullmatch(name):
        return (name,)  # `category` has given numbers one spelling already
    wide = unicodedata.normalize("NFKC", JOINERS.sub("", name))
    # Folding the case can take a text out of its normal form.
    folded = unicodedata.normalize("NFKC", wide.casefold())
    parts = []
    for part in PARTS.findall(folded):
        if part.isdecimal():
            part = part.lstrip("0") or "0"
        parts.append(part)
    return tuple(parts) or (name,)
