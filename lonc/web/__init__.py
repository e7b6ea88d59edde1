"""
The status page, the metrics and health checks: read-only, with GET and HEAD.

The content comes from the same reports as the answers of the management port. It may be accessible
to every local user, so it contains no data of clients or requests.
"""
