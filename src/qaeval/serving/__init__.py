"""Servers: whether they may be asked, and what they can do."""
