When started in the background, lonc prints a line with the number of hosts served, the process id and the path of the log.
