"""Fixtures of the suite."""

from ray_cluster import chunks, cluster, run, whole, workers

__all__ = ["chunks", "cluster", "run", "whole", "workers"]
