"""
Listening and connecting, with transports that write immediately and share one epoll instance.

This package is independent of the protocols: it knows no hosts, requests or settings.
"""
