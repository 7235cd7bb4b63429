"""qaeval: which open model should we host, and can we trust the judge that says so?

The public API, also in `qaeval.api`; loaded at the first access, so that ``import qaeval`` takes no time.
"""

import logging
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qaeval.api import (
        AgreementReport,
        GateReport,
        JudgeCertificate,
        LabelStatus,
        ProgressEvent,
        Report,
        Run,
        aagreement,
        acertify,
        acompare,
        agate,
        agenerate,
        agrade,
        agreement,
        aimport_items,
        alabel_status,
        aload_run,
        certify,
        compare,
        gate,
        generate,
        grade,
        import_items,
        label_by_model,
        label_status,
        load_run,
    )

__version__ = "0.2.0"

__all__ = [
    "AgreementReport",
    "GateReport",
    "JudgeCertificate",
    "LabelStatus",
    "ProgressEvent",
    "Report",
    "Run",
    "__version__",
    "aagreement",
    "acertify",
    "acompare",
    "agate",
    "agenerate",
    "agrade",
    "agreement",
    "aimport_items",
    "alabel_status",
    "aload_run",
    "certify",
    "compare",
    "gate",
    "generate",
    "grade",
    "import_items",
    "label_by_model",
    "label_status",
    "load_run",
]

# a library is silent unless the application configures logging
logging.getLogger("qaeval").addHandler(logging.NullHandler())


class _Package(ModuleType):
    """Keeps the functions `agreement` and `gate` apart from the folders of these names.

    The import system sets each submodule as an attribute of its package, which would put a module in place of the function.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    if name in __all__:
        value = globals()[name] = getattr(import_module("qaeval.api"), name)
        return value
    raise AttributeError(f"module 'qaeval' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
