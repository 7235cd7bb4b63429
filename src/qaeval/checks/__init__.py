"""Checks of a candidate's items that need no model: pure functions, named in an eval's ``checks:``."""
