"""Finished runs over time: one rate per run, cut where a change makes them incomparable."""
