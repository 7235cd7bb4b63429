"""Export a graded run: training data, tables, sheets for human labels."""

from qaeval.export.select import Filters
from qaeval.export.write import ExportResult, write_export

__all__ = ["ExportResult", "Filters", "write_export"]
