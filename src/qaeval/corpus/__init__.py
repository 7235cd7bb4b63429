"""From files to the sample set: loading, sampling."""
