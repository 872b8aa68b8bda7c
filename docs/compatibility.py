"""The table of docs/library.md: which method works with what, as the classes say: `python docs/compatibility.py`."""

from pathlib import Path

from agm import methods
from agm.methods.method import Method

PAGE = Path(__file__).parent / "library.md"
BEGIN, END = "<!-- python docs/compatibility.py writes what follows -->\n", "<!-- to here -->\n"
COLUMNS = [
    "method",
    "black box",
    "additive fusion only",
    "other losses",
    "accumulation",
    "`GradScaler`",
    "several processes",
    "autocast",
    "compiled parts",
    "`start_epoch` reads",
    "replaces",
]


def row(name: str) -> list[str]:
    """What a method works with, a cell per column."""
    method = methods.get(name)
    return [
        f"`{method.__name__}`",
        black_box(method),
        said(method.needs_additive is not None),
        said(not method.classification),
        said(method.single_step and method.scale_free),
        said(method.scale_free),
        said(method.data_parallel),
        # What holds of every method: the battery (tests/battery.py) is the same for all.
        "yes",
        "yes",
        ", ".join(f"`{split}`" for split in method.reads),
        method.own_network or "",
    ]


def black_box(method: type[Method]) -> str:
    """Whether a method trains a black box, and what it then needs."""
    if method.needs_features:
        return "no"
    return "with `encoders=`" if method.needs_encoders or method.modulates_encoders else "yes"


def said(holds: bool) -> str:
    """A cell that is yes or nothing."""
    return "yes" if holds else "–"


def table() -> str:
    """The table as Markdown, a row for every method."""
    rows = [COLUMNS, ["---"] * len(COLUMNS)]
    rows += [row(name) for name in methods.METHODS]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def page_with_table(page: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
