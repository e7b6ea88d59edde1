In the log of an embedding program, messages about a host contain its id, and normal starts and stops are not `critical`. `TwistedClient` no longer logs its factories there.
