"""Files that people write (YAML) and files of rows (JSONL)."""
