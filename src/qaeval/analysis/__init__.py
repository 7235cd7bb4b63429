"""From the rows of a run to `report.Report`: one table of letters, and what it shows."""
