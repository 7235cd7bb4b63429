"""Usable rates of finished runs over time, in segments of comparable runs."""
