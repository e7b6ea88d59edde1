`lonc.testing` provides trial tests with a host, its socket, and a lond with configurable faults, in three lines.
