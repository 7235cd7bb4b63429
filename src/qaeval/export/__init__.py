"""A graded run becomes training data, a table, or a sheet for people who label."""

from qaeval.export.select import Filters
from qaeval.export.write import Written, write_export

__all__ = ["Filters", "Written", "write_export"]
