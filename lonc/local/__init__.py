"""
The local side: what speaks with clients on UNIX sockets, and the limits that all clients share.

Nothing here knows a lond.
"""
