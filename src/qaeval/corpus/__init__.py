"""Documents, chunks and samples: reading, cutting, loading and drawing."""
