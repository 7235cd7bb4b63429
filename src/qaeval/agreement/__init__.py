"""Agreement between the judge and the labels, and between raters."""
