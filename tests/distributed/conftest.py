"""Fixtures of the suite."""

from ray_cluster import chunks, cluster, reference_run, run, workers

__all__ = ["chunks", "cluster", "reference_run", "run", "workers"]
