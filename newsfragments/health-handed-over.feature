After a take-over, and after a restart under systemd, a host that was DEAD begins as `unproven` and is probed at once.
