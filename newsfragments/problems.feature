What is wrong now is kept on one list in the daemon: `lonc status`, `lonc top` and the page show it. Each problem has a
kind whose name stays (`kind` and `subject` are new in `findings` of `lonc status --json`), and the log has a line when
one begins and when it is over. A certificate that has ended is critical.
