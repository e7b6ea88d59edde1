`twistd lonc --take-over` replaces a running lonc, without systemd too: clients are not refused, and pauses and the pid file's
lock pass to the new process. Where that cannot have its ports, the old one goes on.
