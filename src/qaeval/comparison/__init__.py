"""Which candidate to use: the report of a run, from its rows to its pages."""
