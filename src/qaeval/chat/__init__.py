"""Models that can be asked: the protocol, and servers over HTTP."""
