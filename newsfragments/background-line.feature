At a start in the background the terminal has one line: how many hosts are served, by which process, and where the log is.
