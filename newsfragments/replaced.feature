If another release of lonc has been installed and the running one was not restarted, `lonc status` shows a note, and so does a command that fails for that reason.
