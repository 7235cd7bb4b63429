"""Projects: a folder with the registry, an eval, a gate and their schemas, created by one command."""
