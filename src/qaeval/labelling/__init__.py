"""Labels of a run: which items are asked, what a rater said, and what more labels would show."""
