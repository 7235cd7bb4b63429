"""Models that can be asked: the protocol, servers over HTTP, and the embedded ones."""
