"""
One host of the network: its sockets, its queue, its connections and their health.

Nothing here knows the daemon around it: signals, reports, management.
"""
