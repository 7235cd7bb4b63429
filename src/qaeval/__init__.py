"""qaeval: which open model should we host, and can we trust the judge that says so?"""

__version__ = "0.1.0"
