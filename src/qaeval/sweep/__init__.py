"""One server under increasing load: prompts, closed loops, the knee and the report."""
