"""Which fonts of this machine can draw a text, and which characters no font has.

matplotlib brings DejaVu Sans, which has no Chinese, Japanese, Korean or Thai. Where the machine has fonts with them,
they are used. The picture names the characters that no font has, because an empty box could stand for anything.
"""

import re
import unicodedata
from functools import cache

from matplotlib.font_manager import findfont, fontManager, get_font

from agm.pipeline.steps.extract.text import INVISIBLE

FIRST = "DejaVu Sans"
# matplotlib does not draw emoji in colours, which are pictures. Its font of last resort has only a box with the name of
# the script for every character.
UNREADABLE = ("Color", "Last Resort")


class Fonts:
    """The fonts to draw a text with.

    Attributes:
        families: their names, in the order in which matplotlib looks for a character.
        missing: the characters that no font has.
    """

    def __init__(self, text: str) -> None:
        text = INVISIBLE.sub("", text)
        visible = {character for character in text if not character.isspace()}
        self.families = [FIRST]
        self.missing = _without(visible, findfont(FIRST))
        # The fonts of the machine are many: they are read only where the first one is not enough.
        if self.missing:
            for name, path in _others():
                missing = _without(self.missing, path)
                if missing != self.missing:
                    self.families.append(name)
                    self.missing = missing
        self._gap = None
        if self.missing:
            self._gap = re.compile(f"[{re.escape(''.join(sorted(self.missing)))}]+")

    def drawable(self, text: str) -> str:
        """The text, with characters that no font has named in brackets, such as [2 × CJK, no font]."""
        visible = INVISIBLE.sub("", text)
        if self._gap is None:
            return visible
        return self._gap.sub(lambda gap: _named(gap[0]), visible)


def _named(characters: str) -> str:
    """How many characters of which script; the Unicode name of a character begins with its script."""
    script = unicodedata.name(characters[0], "UNKNOWN").split()[0]
    return f"[{len(characters)} × {script}, no font]"


def _others() -> list[tuple[str, str]]:
    """Name and file of the machine's other fonts of regular style, in the order of the names."""
    fonts = set()
    for font in fontManager.ttflist:
        is_regular = font.style == "normal" and font.variant == "normal"
        is_readable = not any(word in font.name for word in UNREADABLE)
        if is_regular and is_readable:
            fonts.add((font.name, font.fname))
    return sorted(fonts)


def _without(characters: set[str], path: str) -> set[str]:
    """The characters that a font does not have."""
    available = _characters(path)
    return {character for character in characters if ord(character) not in available}


@cache
def _characters(path: str) -> frozenset[int]:
    """The code points that a font has; none where its file cannot be read."""
    try:
        return frozenset(get_font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
