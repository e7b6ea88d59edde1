Each JSON log message contains the name of its event as `event`, such as `host-marked-dead`, for programs that monitor the log.
