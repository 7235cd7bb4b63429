"""HTML pages: template environment, filters and content security policy."""

import base64
import hashlib
import re
from typing import Any, Final, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from qaeval.report.chart import DARK, LIGHT, Chart
from qaeval.report.numbers import in_words
from qaeval.text.visible import visible

STYLE: Final = "style.css.j2"
"""The style sheet of all pages."""
SCRIPT: Final = "page.js"
"""The script of the report."""
TICKS: Final = 1000
"""Resolution of bars and intervals: the width of a scale in the units of the style sheet."""


def data_url(chart: Chart, theme: Literal["light", "dark"]) -> str:
    """Return a chart as a data URL, an image in which scripts do not run."""
    svg = chart.svg(LIGHT if theme == "light" else DARK)
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def page_environment() -> Environment:
    """Return the template environment; it escapes all values, and a missing value is an error."""
    environment = Environment(
        loader=PackageLoader("qaeval.report"),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = prose
    environment.filters["sentence"] = sentence
    environment.filters["in_words"] = in_words
    return environment


def _visible(value: Any) -> Any:  # noqa: ANN401 - any value of a template
    """Make control characters of untrusted text visible; markup of qaeval stays as it is."""
    return visible(value) if type(value) is str else value


def prose(text: str) -> Markup:
    """Escape a sentence, with non-breaking spaces between numbers and units and within intervals."""
    tied = re.sub(r"(?<=\d) (?=%)", "\u00a0", text)
    tied = re.sub(r"\[[^\[\]]*\d\]", lambda match: match.group().replace(" ", "\u00a0"), tied)
    tied = re.sub(r"(?<=[=<]) (?=\d)|(?<=\bp) (?=[=<])", "\u00a0", tied)
    return escape(visible(tied))


def sentence(text: str) -> Markup:
    """Escape a sentence of qaeval as `prose` does; text between backticks becomes code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(prose(text))))  # noqa: S704 - escaped before


def content_policy(style: str, *scripts: str) -> str:
    """Return the policy of a self-contained page: its own style sheet, scripts and images only."""
    script_policy = f"script-src {' '.join(map(_source, scripts))}; " if scripts else ""
    return f"default-src 'none'; style-src {_source(style)}; {script_policy}img-src data:; base-uri 'none'; form-action 'none'"


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
