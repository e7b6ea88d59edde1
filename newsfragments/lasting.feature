Whatever a warning of the log says that lasts is a problem until it is over: a port that does not listen where it should, a
host table that no server gives, descriptors that are used up, answers to `ping` that tell nothing.
