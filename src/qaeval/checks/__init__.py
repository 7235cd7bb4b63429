"""Checks of what a candidate wrote that need no model: pure functions, named in an eval's ``checks:``."""
