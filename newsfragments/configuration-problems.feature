A start, a reload and `lonc check` read and judge the configuration alike. `lonc check`, and a start that is refused, name
everything that is wrong at once; a folder that everybody can write, a private key that everybody can read, lines that do
nothing and a lonc that runs as root without `--uid` are problems that `lonc status` shows until they are mended, and
that the answer of `lonc reload` names. The lines of the log on these begin with `a problem:`, and a description of a port
that is none refuses the reload.
