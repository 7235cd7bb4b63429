"""Hypothesis searches anew on a developer's machine and repeats the same cases in CI."""

import os

from hypothesis import settings

settings.register_profile("developer", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "developer")

# a question of an earlier test must not be answered from a cache; the tests of the cache set a folder of their own
os.environ["QAEVAL_CACHE"] = "off"
