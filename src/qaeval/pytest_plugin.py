"""The gate inside pytest: the fixture ``qaeval``, for teams whose checks live there.

::

    def test_quality(qaeval):
        qaeval.gate("results/today", baseline="baselines/qa_pairs.json")


    def test_hallucinations(qaeval):
        qaeval.assert_not_worse("results/today", "results/main", margin=0.03, quantity="hallucination_rate")

A regression fails the test, and so does a gate that comes to no answer: too little data, a judge without the certificate that
the policy requires, runs that are not comparable. Where the policy says ``inconclusive: warn`` such a test is skipped, with the
reason: it passes only where the gate did. Paths are read from the working directory, as on the command line.

pytest loads this module at every start: whatever takes time to import is imported when a test asks for it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from qaeval.gate.model import GateReport


class Gates:
    """What the fixture ``qaeval`` is."""

    def gate(
        self,
        run: str | Path,
        *,
        baseline: str | Path | None = None,
        policy: str | Path | None = None,
        candidates: Mapping[str, str] | None = None,
        config: str | Path | None = None,
        labels: Sequence[str | Path] = (),
    ) -> "GateReport":
        """Gate a run as ``qaeval gate`` does, and write ``gate.json`` into its directory.

        Args:
            run: Run directory.
            baseline: Run directory, baseline file or ``s3://`` address; what the policy says, else ``baselines/<eval>.json``.
            policy: The rules; ``gate.yaml`` where it is there, else the default ones.
            candidates: Candidates of the run, each with its counterpart in the baseline; all, each with its namesake.
            config: Registry file to lay over the default one.
            labels: Files of labels; the eval's own.

        Returns:
            The report of a gate that passed.

        Raises:
            AssertionError: the gate did not pass; its words say why.
            QaevalError: there is no such run, baseline or policy, or it cannot be read.
        """
        __tracebackhide__ = True
        from qaeval.api import gate

        return _passed(
            lambda: gate(
                run,
                baseline=baseline,
                policy=policy,
                candidates=candidates,
                config=config,
                labels=labels or None,
            )
        )

    def assert_not_worse(
        self,
        run: str | Path,
        baseline: str | Path,
        margin: float | str,
        *,
        quantity: str = "usable_rate",
        candidates: Mapping[str, str] | None = None,
        flag: str = "",
        check: str = "",
        config: str | Path | None = None,
        labels: Sequence[str | Path] = (),
    ) -> "GateReport":
        """Assert one thing of a run: that a quantity did not get worse by the margin, proven at the 95 % level.

        Args:
            run: Run directory.
            baseline: As in `gate`.
            margin: Largest loss that is accepted: ``"5 points"`` or 0.05; ``"20%"`` of the baseline's value for times and cost.
            quantity: By its name in a policy: ``usable_rate``, ``hallucination_rate``, ``p95_latency`` and so on.
            candidates: As in `gate`.
            flag: Of ``flag_rate``: which one.
            check: Of ``check_rate``: which one.
            config: As in `gate`.
            labels: As in `gate`.

        Returns:
            The report, which passed.

        Raises:
            AssertionError: that is not shown; the words say what is.
            QaevalError: as in `gate`.
        """
        __tracebackhide__ = True
        from qaeval.api import gate

        rule = {"quantity": quantity, "margin": margin, "flag": flag, "check": check}
        return _passed(
            lambda: gate(
                run,
                baseline=baseline,
                policy={"name": "assert_not_worse", "rules": [rule]},
                candidates=candidates,
                config=config,
                labels=labels or None,
                save=False,
            )
        )


def _passed(ask: Callable[[], "GateReport"]) -> "GateReport":
    """Return a report that passed; the traceback of anything else ends in the test, so that its words stand out."""
    __tracebackhide__ = True
    from qaeval.errors import QaevalError

    try:
        report = ask()
    except QaevalError as error:
        raise error.with_traceback(None) from None
    if report.outcome == "pass":
        return report
    from qaeval.gate.messages import plain

    said = (
        report.headline,
        *(rule.sentence for rule in report.rules if rule.verdict != "pass"),
        *report.notes,
    )
    words = "\n".join(map(plain, said))
    if report.exit_code == 0:
        pytest.skip(words)
    raise AssertionError(words)


@pytest.fixture(name="qaeval", scope="session")
def gates() -> Gates:
    """Gates of runs of qaeval: ``gate`` and ``assert_not_worse``."""
    return Gates()
