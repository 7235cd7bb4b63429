"""Items that were made elsewhere, as a run: pairs, answers and preference pairs from files and tables."""
