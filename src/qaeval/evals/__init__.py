"""Evals and rubrics: folders of `evals/` and files of `rubrics/`, read and checked."""
