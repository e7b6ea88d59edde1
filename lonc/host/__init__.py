"""
A host of the network: its sockets, queue, connections and their health.

This package is independent of the daemon: signals, reports, management.
"""
