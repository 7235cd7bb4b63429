"""Comparison of candidates: the report of a run, the verdict and their views."""
