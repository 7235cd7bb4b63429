"""Models without server, GPU or download: two extractive candidates and a lexical judge."""
