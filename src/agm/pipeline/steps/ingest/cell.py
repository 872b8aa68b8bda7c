"""What a cell of a table means: one rule for every column, so that one thing is not two because it is spelled twice.

1. Text is in Unicode's composed form (NFC), without invisible characters, and with one space where there is white space
   between words. Paths of files are the exception: the file system decides what their names are.
2. An empty cell is a missing value, and so is one of `MISSING`, the spellings that pandas reads as such.
3. In a column of categories (label, group, split) a whole number is that number however it is spelled: 1, 01, +1 and
   1.0 are 1. So are the two truth values: TRUE, True and true are true.

Everything else is what is written: `joy` and `Joy` are two classes. Such look-alikes are warned of (`look_alikes`).
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
# Soft hyphens, zero-width spaces, marks of direction, byte order marks. Joiners (U+200C, U+200D) belong to words.
INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
JOINERS = re.compile("[\u200c\u200d]")
PARTS = re.compile(r"[^\W\d_]+|\d+|[^\w\s.-]")
MOST_DIGITS = 4000
"""Python turns no longer numerals into numbers."""
MOST_SHOWN = 10


def plain(cell: str) -> str:
    """The text of a cell by rules 1 and 2; empty for a missing value."""
    text = " ".join(unicodedata.normalize("NFC", INVISIBLE.sub("", cell)).split())
    return "" if text in MISSING else text


def category(cell: str) -> str:
    """The category that a cell names, by all three rules; empty for a missing value."""
    text = plain(cell)
    if (whole := WHOLE.fullmatch(text)) and len(text) < MOST_DIGITS:
        return str(int(whole[1]))
    return text.lower() if TRUTH.fullmatch(text) else text


def look_alikes(column: str, names: Iterable[str]) -> list[str]:
    """Warnings of different categories that a person may have meant as one, and of those that look like no value.

    Args:
        column: what the categories are, for the message.
        names: the category of each clip.
    """
    counts = Counter(names)
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in sorted(counts):
        alike[_likeness(name)].append(name)
    found = []
    for each in alike.values():
        if len(each) > 1:
            shown = " and ".join(_counted(name, counts) for name in each)
            found.append(f"{column}: {shown} look alike; if they are one, spell them alike")
    no_values = {spelling.casefold() for spelling in MISSING}
    for name in sorted(counts):
        if name.casefold() in no_values:
            found.append(f"{column}: {_counted(name, counts)} looks like a missing value; it is taken for a name")
    if len(found) > MOST_SHOWN:
        found[MOST_SHOWN:] = [f"{column}: {len(found) - MOST_SHOWN} more names look alike"]
    return found


def _counted(name: str, counts: Counter[str]) -> str:
    return f"{name!r} ({counts[name]:,} clip{'' if counts[name] == 1 else 's'})"


def _likeness(name: str) -> tuple[str, ...]:
    """The same for names that differ in case, width, separators or leading zeros only. Numbers have one spelling."""
    if INTEGER.fullmatch(name):
        return (name,)
    wide = unicodedata.normalize("NFKC", JOINERS.sub("", name))
    folded = unicodedata.normalize("NFKC", wide.casefold())
    parts = tuple(part.lstrip("0") or "0" if part.isdecimal() else part for part in PARTS.findall(folded))
    return parts or (name,)
