"""Draw docs/demo.svg, the README's figure, from the study in this folder: `python docs/figure.py`."""

import re
from pathlib import Path

from agm.pipeline import config
from agm.pipeline.io.files import replacing
from agm.pipeline.steps.report import drawing
from agm.pipeline.steps.report.collect import collect
from agm.pipeline.steps.report.drawing import Panel
from agm.pipeline.steps.report.figures import phi_panels
from agm.pipeline.steps.report.results import Results, tidy

WIDTH, HEIGHT, TITLE, GAP = 290, 82, 22, 12
HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {width} {height}">
<style>
{colours}
svg {{ color: var(--ink) }}
.title {{ font: 600 13px var(--sans); fill: currentColor }}
</style>
"""


def page_colours() -> str:
    """The fonts and colours of the report's page, light and dark, which the panels take."""
    css = Path(drawing.__file__).with_name("style.css").read_text(encoding="utf-8")
    return css[: css.index("* {")].strip()


def placed(panel: Panel, left: int) -> str:
    """One panel below its title."""
    svg = re.sub(r"^<svg", f'<svg x="{left}" y="{TITLE}" width="{WIDTH}" height="{HEIGHT}"', panel.svg)
    return f'<text class="title" x="{left}" y="14">{panel.title}</text>\n{svg}'


def main() -> None:
    params = config.load()
    study = collect(params)
    results = Results(tidy(study), study)
    panels = phi_panels(study, results, params.study.fusions[0])
    width = len(panels) * (WIDTH + GAP) - GAP
    drawn = [placed(panel, number * (WIDTH + GAP)) for number, panel in enumerate(panels)]
    with replacing(Path("docs/demo.svg")) as temporary:
        head = HEAD.format(width=width, height=TITLE + HEIGHT, colours=page_colours())
        temporary.write_text("\n".join([head, *drawn, "</svg>\n"]))


if __name__ == "__main__":
    main()
