"""The registry, `qaeval.yaml`: models, judges, machines, prices and keys."""
