"""Evals and rubrics: read and validate the folders of `evals/` and the files of `rubrics/`."""
