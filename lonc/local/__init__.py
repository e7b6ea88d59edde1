"""
The local side: the protocol with clients on UNIX sockets, and the limits shared by all clients.

This package is independent of londs.
"""
