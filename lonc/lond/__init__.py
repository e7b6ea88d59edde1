"""
The embedded lond, which implements the protocol and stores its data in SQLite.

It serves for a first run, for users without a cluster, and for tests, which can inject faults.

`cluster`
    several londs as one Service, and the initial files of a cluster of two hosts.
`table_server`
    a web server for the host table.
`protocol`
    the protocol on one connection, and its factory.
`commands`
    the answers to requests.
`regexp`
    untrusted regular expressions with bounded cost.
`store`
    the data on disk.
`faults`
    fault injection.
`illness`
    named faults that can be chosen while the cluster is running.
"""
