"""
Listening and connecting, with transports that write at once and share one epoll.

Nothing here knows the protocols: no hosts, no requests, no settings.
"""
