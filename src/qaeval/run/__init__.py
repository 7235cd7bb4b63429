"""The engine: stages of a run over the models of the registry, and the servers they need."""
