"""What runs, items and pages cost: on the machines of a run, on others, and by hosted prices."""
