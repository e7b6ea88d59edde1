After a take-over, and after a restart under systemd, hosts that were DEAD are `unproven` and probed immediately.
