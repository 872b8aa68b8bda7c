"""Small panels of SVG that take their text colours from the page, so that they read in light and in dark.

Panels are small so that the page can set them side by side or, on a phone, below each other. A method has the same
colour everywhere. Equal numbers give equal bytes.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullFormatter

from agm.metrics.intervals import Interval

COLOURS = (
    "#3b76b0", "#e07b39", "#3f9a6b", "#b5547c", "#8a6fc0", "#b8962a", "#3fa3b5", "#9a6b4f", "#7d8691", "#c94f4f",
)  # fmt: skip
DASHES = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))
# Stand-ins, which the page's own colours replace.
INK, MUTED, RULE = "#010203", "#010204", "#010205"
THEME = {INK: "currentColor", MUTED: "var(--muted)", RULE: "var(--rule)"}
STYLE = {
    "svg.hashsalt": "agm",
    "svg.fonttype": "none",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.6,
}
WIDTH, HEIGHT = 3.7, 2.3
"""Size of a panel in inches."""


@dataclass(frozen=True)
class Line:
    """How a method is drawn."""

    colour: str
    dashes: tuple[float, ...]

    @property
    def css(self) -> str:
        """The colour for the page's own elements."""
        return THEME.get(self.colour, self.colour)


ALONE = Line(MUTED, (3, 2))
"""How the network trained on one modality alone is drawn."""


@dataclass(frozen=True)
class Panel:
    """One figure: an inline SVG and the title to set above it."""

    title: str
    svg: str


@dataclass(frozen=True)
class Dot:
    """A method in a dot plot.

    Attributes:
        values: one value per seed.
        mean: their mean with its interval; None where no seed has a value.
        note: text behind the method's name.
    """

    values: Sequence[float]
    mean: Interval | None
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """A method over epochs: the line, and the band around it."""

    epochs: Sequence[int]
    middle: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def lines(methods: Sequence[str]) -> dict[str, Line]:
    """A colour and dash pattern for each method, in the order of the study."""
    styles = {}
    for place, method in enumerate(methods):
        colour = COLOURS[place % len(COLOURS)]
        # After all colours are used, the same colours come again with the next dash pattern.
        dashes = DASHES[place // len(COLOURS) % len(DASHES)]
        styles[method] = Line(colour, dashes)
    return styles


def dots(
    title: str, scope: str, rows: Mapping[str, Dot], limits: tuple[float, float], alone: Interval | None = None
) -> Panel:
    """One row per method: a dot at the mean, a line over its interval, a tick for every seed.

    A method without any seed has an empty row.

    Args:
        scope: distinguishes panels of a page that have the same title.
        rows: the dots by method.
        limits: the ends of the horizontal axis.
        alone: a reference for all methods, drawn as a vertical band.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _panel(0.55 + 0.24 * len(rows))
        if alone is not None:
            _reference(axes, alone)
        styles = lines(list(rows))
        for place, (method, dot) in enumerate(rows.items()):
            if dot.mean is None:
                continue
            line = styles[method]
            axes.plot(dot.values, [place] * len(dot.values), "|", color=line.colour, markersize=7, alpha=0.6)
            if dot.mean.low is not None:
                axes.plot([dot.mean.low, dot.mean.high], [place, place], color=line.colour)
            axes.plot([dot.mean.mean], [place], "o", color=line.colour, markersize=6)
        axes.set(xlim=limits, ylim=(len(rows) - 0.4, -0.6))
        labels = [f"{method}{dot.note}" for method, dot in rows.items()]
        axes.set_yticks(range(len(rows)), labels, color=INK)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        return Panel(title, _svg(figure, f"{scope} {title}"))


def curves(
    title: str,
    scope: str,
    methods: Mapping[str, Curve],
    order: Sequence[str],
    limits: tuple[float, float] | None = None,
    alone: Curve | None = None,
) -> Panel:
    """Lines over epochs.

    Args:
        scope: distinguishes panels of a page that have the same title.
        methods: the curve of each method that has one.
        order: all methods of the study, in the order that decides their colours.
        limits: the ends of the vertical axis; None fits it to the curves.
        alone: the curve of the network trained on one modality alone.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _panel(HEIGHT)
        _draw(axes, methods, order, alone)
        axes.set_ylim(limits)
        return Panel(title, _svg(figure, f"{scope} {title}"))


def log_curves(
    title: str, scope: str, methods: Mapping[str, Curve], order: Sequence[str], limits: tuple[float, float]
) -> Panel:
    """Like `curves`, on a logarithmic axis, with a line at 1."""
    with mpl.rc_context(STYLE):
        figure, axes = _panel(HEIGHT)
        axes.set_yscale("log")
        axes.axhline(1.0, color=MUTED, linewidth=0.8, dashes=(3, 2))
        _draw(axes, methods, order)
        axes.set_ylim(limits)
        axes.yaxis.set_major_locator(_labelled(limits[1] / limits[0]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        return Panel(title, _svg(figure, f"{scope} {title}"))


def histogram(title: str, label: str, edges: Sequence[float], counts: Sequence[int]) -> Panel:
    """Bars of `counts` between `edges`, over an axis called `label`."""
    with mpl.rc_context(STYLE):
        figure, axes = _panel(0.75 * HEIGHT)
        axes.stairs(counts, edges, fill=True, color=COLOURS[0])
        axes.set(xlabel=label, xlim=(edges[0], edges[-1]), ylim=(0, None))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        return Panel(title, _svg(figure, title))


def _panel(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    return figure, axes


def _reference(axes: Axes, alone: Interval) -> None:
    if alone.low is not None:
        axes.axvspan(alone.low, alone.high, color=MUTED, alpha=0.15, linewidth=0)
    axes.axvline(alone.mean, color=ALONE.colour, dashes=ALONE.dashes)


def _draw(axes: Axes, methods: Mapping[str, Curve], order: Sequence[str], alone: Curve | None = None) -> None:
    styles = lines(order)
    drawn = [(curve, styles[method]) for method, curve in methods.items()]
    # The reference first, so that the methods lie over it.
    if alone:
        drawn.insert(0, (alone, ALONE))
    for curve, line in drawn:
        axes.fill_between(curve.epochs, curve.low, curve.high, color=line.colour, alpha=0.16, linewidth=0)
        # A single epoch is a point, which a line would not show.
        marker = "o" if len(curve.epochs) == 1 else None
        axes.plot(curve.epochs, curve.middle, color=line.colour, dashes=line.dashes, marker=marker)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def _labelled(ratio: float) -> Locator:
    """Where to label a logarithmic axis whose upper end is `ratio` times its lower one: a handful of places."""
    if ratio < 4:
        return MaxNLocator(4)
    if ratio < 30:
        steps = (1.0, 2.0, 5.0)
    elif ratio < 1000:
        steps = (1.0, 3.0)
    else:
        steps = (1.0,)
    return LogLocator(subs=steps, numticks=8)


def _svg(figure: Figure, name: str) -> str:
    """The figure as an element of the page: no addresses, names of its own, the page's colours and fonts."""
    buffer = io.StringIO()
    # Without a date and a version, equal numbers give equal bytes.
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)
    text = buffer.getvalue()
    # HTML needs neither the XML declaration nor the namespaces.
    text = text[text.index("<svg") :]
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    # Names must be unique in the page: matplotlib calls something 'axes_1' in every figure.
    prefix = re.sub(r"\W+", "-", name)
    text = re.sub(r'\bid="|(?<=href=")#|(?<=url\()#', partial(_own, prefix), text)
    # Only the family: the sizes are those of the figure.
    text = re.sub(r"(font: [^';\"]*?\d(?:\.\d+)?px )[^;\"]*", r"\1var(--sans)", text)
    for stand_in, colour in THEME.items():
        text = text.replace(stand_in, colour)
    # The page decides the size; a screen reader needs a name.
    size = r'width="[^"]*" height="[^"]*"|height="[^"]*" width="[^"]*"'
    return re.sub(size, f'role="img" aria-label="{name}"', text, count=1)


def _own(prefix: str, match: re.Match[str]) -> str:
    return f"{match.group()}{prefix}-"
