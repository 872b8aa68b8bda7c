"""Which of the fonts on this machine draw a text, and what none of them has.

matplotlib brings DejaVu Sans, which has no Chinese, Japanese, Korean or Thai. Where the machine has fonts with them,
they are used; what no font has is named in the picture, for an empty box in its place could be anything.
"""

import re
import unicodedata
from functools import cache

from matplotlib.font_manager import findfont, fontManager, get_font

from agm.pipeline.steps.extract.text import INVISIBLE

FIRST = "DejaVu Sans"
# Emoji in colours are pictures, which matplotlib does not draw. The last resort, which it brings, has a box with the
# name of the script for every character there is.
UNREADABLE = ("Color", "Last Resort")


class Fonts:
    """The fonts to draw a text with.

    Attributes:
        families: their names, in the order in which a character is looked for.
        missing: the characters that none of them has.
    """

    def __init__(self, text: str) -> None:
        text = INVISIBLE.sub("", text)
        missing = {each for each in text if not each.isspace() and ord(each) not in _characters(findfont(FIRST))}
        self.families = [FIRST]
        for name, path in _others() if missing else ():
            has = {each for each in missing if ord(each) in _characters(path)}
            if has:
                self.families.append(name)
                missing -= has
        self.missing = missing
        self._gap = re.compile(f"[{re.escape(''.join(sorted(missing)))}]+") if missing else None

    def drawable(self, text: str) -> str:
        """The text, with characters that no font has named in brackets, such as [2 × CJK, no font]."""
        seen = INVISIBLE.sub("", text)
        return seen if self._gap is None else self._gap.sub(lambda found: _named(found[0]), seen)


def _named(characters: str) -> str:
    """How many characters of which script; Unicode's names begin with it."""
    script = unicodedata.name(characters[0], "UNKNOWN").split()[0]
    return f"[{len(characters)} × {script}, no font]"


def _others() -> list[tuple[str, str]]:
    """Name and file of the machine's other fonts of regular style, in the order of the names."""
    fonts = (each for each in fontManager.ttflist if each.style == "normal" and each.variant == "normal")
    return sorted({(each.name, each.fname) for each in fonts if not any(name in each.name for name in UNREADABLE)})


@cache
def _characters(path: str) -> frozenset[int]:
    """The characters that a font has; none of a file that cannot be read."""
    try:
        return frozenset(get_font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
