"""Generate and grade: rows in, rows out, one bounded loop."""
