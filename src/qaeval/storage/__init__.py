"""Everything that is a file of a run: run directories, shards, S3 stores, and the merge of shards."""
