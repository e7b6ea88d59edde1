"""
Requests that must not be lost: found on disk, sealed, sent in order, and kept when refused.

Connections are none of its business: it asks a host as a client does.
"""
