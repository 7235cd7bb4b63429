"""`qaeval decide` and `qaeval cost`: ranking of candidates by weights, and costs of hosting alternatives."""

import re
from contextlib import ExitStack
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from qaeval.cli.options import AsJson, Machine, Margin, Registry, find_run_argument, mapping
from qaeval.cli.terminal import say_json
from qaeval.errors import UsageError

if TYPE_CHECKING:
    from qaeval.comparison.report import Report
    from qaeval.cost.model import MeasuredRun
    from qaeval.registry.config import Config
    from qaeval.report.facts import MachineFacts

_CURRENCY: Final = re.compile(r"[A-Z]{3}")

_Runs: TypeAlias = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN",
        parser=find_run_argument,
        help="Run directories, or `latest`; several are analysed side by side.",
    ),
]
_Weights: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--weight",
        metavar="CRITERION=NUMBER",
        help="Weight of a criterion, 0 to ignore it; repeatable; default: the proposed weights. Criteria: quality, reliability, "
        "cost, speed, licence, maintenance, sovereignty.",
    ),
]
_MaybeRuns: TypeAlias = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="RUN",
        parser=find_run_argument,
        help="Run directories, or `latest`; several are analysed side by side. Without a run: --items, --per-second and --price.",
    ),
]
_Kept: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--always-on",
        metavar="NAME",
        help="Registry machine priced as always on; default: the machine of the run.",
    ),
]
_Start: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--start",
        min=0,
        metavar="SECONDS",
        help="Start-up time of a machine, including server start-up if the run used running servers.",
    ),
]
_Linger: TypeAlias = Annotated[
    float,
    typer.Option(
        "--linger",
        min=0,
        metavar="SECONDS",
        help="Idle time billed after a run, before the machine is released.",
    ),
]
_Rate: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--hourly-rate", min=0, help="Hourly cost of a person who waits for the run; default: not counted."
    ),
]
_Currency: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--currency",
        metavar="EUR",
        help="Currency of --hourly-rate and --price; default: the currency of the machines.",
    ),
]
_Items: TypeAlias = Annotated[
    int | None, typer.Option("--items", min=1, help="Without a run: number of items.")
]
_Speeds: TypeAlias = Annotated[
    list[float] | None,
    typer.Option("--per-second", help="Without a run: items per second; repeatable, to compare speeds."),
]
_Price: TypeAlias = Annotated[
    float | None,
    typer.Option("--price", help="Without a run: machine price per hour; default: the price of --hardware."),
]


def decide(
    runs: _Runs,
    weight: _Weights = None,
    hardware: Machine = None,
    margin: Margin = None,
    config: Registry = None,
    as_json: AsJson = False,
) -> None:
    """Rank candidates by weighted criteria.

    Also shows how far each weight can move before another candidate ranks first.
    """
    from qaeval.cli.tables import print_sections
    from qaeval.comparison.decision import decide as weigh
    from qaeval.comparison.decision import write_decision
    from qaeval.registry.find import find_config

    weights = {name: _number(name, text) for name, text in mapping(weight, "--weight").items()}
    report, _ = _priced_runs(runs, find_config(config), hardware, margin)
    decision = weigh(report, weights, margin=margin)
    if as_json:
        say_json(decision.model_dump_json())
    else:
        print_sections(write_decision(decision))


def cost(
    runs: _MaybeRuns = None,
    hardware: Machine = None,
    always_on: _Kept = None,
    start: _Start = None,
    linger: _Linger = 0.0,
    hourly_rate: _Rate = None,
    currency: _Currency = None,
    items: _Items = None,
    per_second: _Speeds = None,
    price: _Price = None,
    config: Registry = None,
    as_json: AsJson = False,
) -> None:
    """Show the cost of a run and of hosting alternatives.

    Also shows the break-even points between the alternatives, in runs per day.
    """
    from qaeval.cli.tables import print_sections
    from qaeval.cost.run_cost import CostAssumptions, cost_run
    from qaeval.cost.sections import write_cost_report
    from qaeval.registry.find import find_config, find_hosted

    registry = find_config(config)
    if currency and not _CURRENCY.fullmatch(currency):
        raise UsageError(f"--currency: expected a code of three capital letters, like EUR, got {currency!r}")
    if not runs:
        _steady(registry, items, per_second or [], price, hardware, currency, as_json=as_json)
        return
    if items is not None or per_second or price is not None:
        raise UsageError(
            "--items, --per-second and --price apply to a plan without a run; omit them, the run has its own"
        )
    assumptions = CostAssumptions(
        start_s=start,
        idle_timeout_s=linger,
        always_on_machine=_priced(registry, always_on, "--always-on") if always_on else None,
        hourly_rate=hourly_rate,
        currency=currency or "",
    )
    report, measured = _priced_runs(runs, registry, hardware, None)
    cost_report = cost_run(measured, report.timing, find_hosted(registry), assumptions)
    if as_json:
        say_json(cost_report.model_dump_json())
    else:
        print_sections(write_cost_report(cost_report))


def _steady(
    registry: "Config",
    items: int | None,
    speeds: list[float],
    price: float | None,
    hardware: str | None,
    currency: str | None,
    *,
    as_json: bool,
) -> None:
    """Print the cost of items at constant speeds, without a run."""
    from qaeval.cli.tables import print_sections
    from qaeval.cost.alternatives import steady_work
    from qaeval.cost.sections import write_work

    if items is None or not speeds or (price is None and hardware is None):
        raise UsageError(
            "cost: expected a run directory, or --items, --per-second and a price (--price with --currency, or --hardware NAME)"
        )
    if price is not None and not currency:
        raise UsageError("--price requires --currency, for example --currency USD")
    if price is None:
        machine = _priced(registry, hardware or "", "--hardware")
        price, currency, priced = machine.price_per_hour or 0.0, machine.currency, machine.priced
    else:
        priced = f"{currency} {price:,.2f} per hour, as given"
    try:
        works = [steady_work(items, per_s=speed, price_per_hour=price) for speed in sorted(speeds)]
    except ValueError as error:
        raise UsageError(str(error)) from error
    if as_json:
        say_json([work.model_dump() for work in works])
    else:
        print_sections(write_work(works, currency or "", priced))


def _priced(registry: "Config", name: str, option: str) -> "MachineFacts":
    from qaeval.registry.find import find_machine

    machine = find_machine(registry, name)
    if machine.price_per_hour is None:
        raise UsageError(
            f"{option} {name}: no price in the registry; add price_per_hour, as_of and source under hardware.{name}"
        )
    return machine


def _priced_runs(
    runs: list[Path], registry: "Config", hardware: str | None, margin: float | None
) -> "tuple[Report, MeasuredRun]":
    """Read the report of a run, or analyse several runs as one, with costs at the prices of the registry."""
    from qaeval.registry.find import find_machines
    from qaeval.storage.run_directory import RunStore

    with ExitStack() as stack:
        stores = [stack.enter_context(RunStore.open(run)) for run in runs]
        settings = [store.settings() for store in stores]
        machines = find_machines(registry, settings, hardware)
        if len(stores) == 1:
            from qaeval.comparison.report_file import load_priced

            return load_priced(stores[0], machines)
        # no stored report has all candidates: differences and the judge's tokens need the letters of all runs
        from qaeval.comparison.analysis import ReportOptions
        from qaeval.comparison.run_data import labels_of_runs
        from qaeval.comparison.write_report import read_report

        options = ReportOptions(
            label_paths=labels_of_runs(runs, settings),
            margin=margin or registry.defaults.margin,
            machines=machines,
        )
        analysis = read_report(stores, options)
    report, rows = analysis.report, analysis.rows
    return report, report.measured(rows.sessions, rows.readings, priced_at=report.run.finished)


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value) or value < 0:
        raise UsageError(f"--weight {name}: expected a number of 0 or more, like {name}=5, got {text!r}")
    return value
