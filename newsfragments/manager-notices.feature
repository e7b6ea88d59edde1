Under systemd (`Type=notify-reload`, as in the unit) lonc says when it is ready, reloads and stops, feeds the watchdog, and
shows a summary of all hosts in `systemctl status`.
