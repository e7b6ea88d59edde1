A host that is away is a line in the log when it dies, with the reason, one when it is back, and one an hour between, however
often it is tried.
