`lonc.testing` gives a trial test a host with its socket, and a lond that can be told to do wrong, in three
lines.
