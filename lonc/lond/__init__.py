"""
The embedded lond: a real lond for the exchange, its data in SQLite.

It is for a first run, for people without a cluster, and for tests, which can order its faults.

`cluster`
    several londs as one Service, and the files of a cluster of two hosts to begin with.
`protocol`
    the exchange on one connection, and the factory that makes it.
`commands`
    what a lond answers to a request.
`regexp`
    regular expressions of strangers, with a bound on their cost.
`store`
    the data on disk.
`faults`
    what a lond can be told to do wrong.
`illness`
    the faults that a person orders by name while the cluster runs.
`reply_writer`
    how it says what it says, faults included.
"""
