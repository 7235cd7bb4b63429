"""From the rows of a run to the table of letters, and summaries of its candidates."""
