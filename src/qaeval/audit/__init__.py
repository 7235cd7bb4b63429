"""Is this judge fit to grade? Planted defects and probes, without labels."""
