Each line of a log in JSON has the name of its event as `event`, such as `host-marked-dead`, for programs that watch the log.
