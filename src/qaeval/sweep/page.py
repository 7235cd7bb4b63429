"""Render ``sweep.md``, ``sweep.html`` and their charts."""

from typing import Any, Final

from markupsafe import Markup

from qaeval.comparison.markdown import CHARTS
from qaeval.report.chart import Chart, Theme
from qaeval.report.markdown import escape, section_lines
from qaeval.report.page import STYLE, content_policy, data_url, page_environment
from qaeval.sweep.knee import KNEE_SHARE_OF_BEST
from qaeval.sweep.model import Sweep
from qaeval.sweep.sections import sweep_subtitle, sweep_title, verdict, write_sweep

_HEIGHT: Final = 3.2
_THROUGHPUT, _FIRST_TOKEN = "#0b7a80", "#c0473b"


def render_sweep_markdown(sweep: Sweep) -> str:
    """Render a sweep as GitHub-flavoured Markdown; it links charts in the folder `CHARTS` beside it."""
    lines = [f"# {escape(sweep_title(sweep))}", "", escape(sweep_subtitle(sweep))]
    knee, *following = write_sweep(sweep)
    lines += ["", f"**{escape(knee.paragraphs[0])}**"]
    for paragraph in knee.paragraphs[1:]:
        lines += ["", escape(paragraph)]
    for chart in sweep_charts(sweep):
        lines += ["", f"![{escape(f'{chart.title}. {chart.alt}')}]({CHARTS}/{chart.name}.svg)"]
    for section in following:
        lines += ["", *section_lines(section)]
    return "\n".join(lines) + "\n"


def render_sweep_html(sweep: Sweep) -> str:
    """Render a sweep as a self-contained page without scripts; deterministic."""
    environment = page_environment()
    style = environment.get_template(STYLE).render(widths=[]).strip()
    knee, *following = write_sweep(sweep)
    return environment.get_template("sweep.html.j2").render(
        title=sweep_title(sweep),
        subtitle=sweep_subtitle(sweep),
        sweep=sweep,
        verdict=knee.paragraphs[0],
        others=knee.paragraphs[1:],
        sections=following,
        pictures=sweep_charts(sweep),
        image=data_url,
        style=Markup(style),  # noqa: S704 - the packaged stylesheet
        policy=content_policy(style),
    )


def sweep_charts(sweep: Sweep) -> tuple[Chart, ...]:
    """Return the charts of throughput and of the time to the first token by requests in flight."""
    levels = [level.concurrency for level in sweep.levels]
    throughputs = [level.tokens_per_s for level in sweep.levels]
    knee = sweep.knee.concurrency if sweep.knee.is_found else None
    description = " ".join(verdict(sweep)[:1])
    best = next(
        (level.tokens_per_s.value for level in sweep.levels if level.concurrency == sweep.knee.best), None
    )

    def throughput(axes: Any, look: Theme) -> None:  # noqa: ANN401 - matplotlib has no types here
        values = [measure.value or 0.0 for measure in throughputs]
        if best is not None:
            axes.axhline(KNEE_SHARE_OF_BEST * best, color=look.soft, linewidth=1, linestyle=":")
            axes.annotate(
                "95 % of the best",
                (levels[0], KNEE_SHARE_OF_BEST * best),
                xytext=(0, 3),
                textcoords="offset points",
                color=look.soft,
            )
        axes.plot(levels, values, color=_THROUGHPUT, linewidth=1.8)
        for level, measure in zip(levels, throughputs, strict=True):
            value, low, high = measure.value or 0.0, measure.low, measure.high
            ends = None if low is None or high is None else [[value - max(0.0, low)], [high - value]]
            axes.errorbar([level], [value], yerr=ends, fmt="o", color=_THROUGHPUT, capsize=4)
        axes.set_ylim(0)
        axes.set_ylabel("output tokens/s")
        _in_flight(axes, levels, knee, look)

    def first_token(axes: Any, look: Theme) -> None:  # noqa: ANN401
        for label, style, times in (
            ("p95", "-", [level.ttft.p95 for level in sweep.levels]),
            ("p50", "--", [level.ttft.p50 for level in sweep.levels]),
        ):
            points = [(level, time) for level, time in zip(levels, times, strict=True) if time is not None]
            axes.plot(
                *zip(*points, strict=True), style, marker="o", color=_FIRST_TOKEN, linewidth=1.8, label=label
            ) if points else None
        axes.set_ylim(0)
        axes.set_ylabel("seconds")
        axes.legend(loc="best")  # explicit, since matplotlib warns if the default takes over a second
        _in_flight(axes, levels, knee, look)

    ttft = "; ".join(
        f"{level.concurrency}: {level.ttft.p95:.3g} s" for level in sweep.levels if level.ttft.p95 is not None
    )
    return (
        Chart(
            "throughput",
            "Throughput against requests in flight",
            description,
            throughput,
            _HEIGHT,
            in_page=True,
        ),
        Chart(
            "first-token",
            "Time to the first token (TTFT)",
            f"p95 at {ttft}",
            first_token,
            _HEIGHT,
            in_page=True,
        ),
    )


def _in_flight(axes: Any, levels: list[int], knee: int | None, look: Theme) -> None:  # noqa: ANN401
    axes.set_xscale("log", base=2)
    axes.set_xticks(levels, [str(level) for level in levels])
    axes.minorticks_off()
    axes.set_xlabel("requests in flight")
    if knee is not None:
        axes.axvline(knee, color=look.ink, linewidth=1)
        axes.annotate(
            f"knee: {knee}",
            (knee, 0.04),
            xycoords=("data", "axes fraction"),
            xytext=(5, 0),
            textcoords="offset points",
            color=look.ink,
        )
