`twistd lonc --take-over` replaces a running lonc, without systemd too: clients keep their connections or wait, and pauses and the pid file's
lock pass to the new process. Whenever one of the two ends before the new one serves, the other one does.
