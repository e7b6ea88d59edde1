A Twisted program that embeds lonc keeps control of its signals, process title and log, and gets exceptions if lonc cannot start: see "Serve all of them" in docs/embedding.rst.
