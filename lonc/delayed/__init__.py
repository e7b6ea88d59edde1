"""
Delayed requests: found on disk, sealed, sent in order, and kept if rejected.

This package does not deal with connections: it submits requests to a host as a client does.
"""
