"""
Listening and connecting, by sockets that send at once on an epoll of their own.

Nothing here knows what is said on a socket: no hosts, no requests, no settings.
"""
