"""``history.html``: runs over time as one page that loads nothing."""

from markupsafe import Markup

from qaeval.report.charts import trend
from qaeval.report.history import History
from qaeval.report.render_html import STYLE, content_policy, data_url, page_environment
from qaeval.report.sections_history import write_history


def render_history(history: History, *, version: str) -> str:
    """Render a history as one self-contained page; the same arguments give the same text.

    Args:
        history: The history.
        version: Of qaeval.
    """
    environment = page_environment()
    style = environment.get_template(STYLE).render(widths=[]).strip()
    charts = (trend(one, f"eval-{place}") for place, one in enumerate(history.evals))
    return environment.get_template("history.html.j2").render(
        sections=write_history(history),
        pictures={chart.name: chart for chart in charts},
        image=data_url,
        version=version,
        style=Markup(style),  # noqa: S704 - our own file, numbers filled in
        policy=content_policy(style),
    )
