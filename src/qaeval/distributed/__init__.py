"""A run on a Ray cluster: blocks of samples, the actors that work on them, and the driver that collects their rows."""
