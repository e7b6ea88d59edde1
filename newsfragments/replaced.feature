Where another lonc has been installed and the one that runs was not restarted, `lonc status` has a note that says so, and a command that fails for that reason says it, too.
