Under systemd (`Type=notify-reload`, as in the unit), lonc reports when it is ready, reloading and stopping, serves the watchdog, and shows a summary of all hosts in `systemctl status`.
