A Twisted program that contains lonc keeps its signals, process title and log, and gets exceptions where lonc
cannot start: see "Serve all of them" in docs/embedding.rst.
