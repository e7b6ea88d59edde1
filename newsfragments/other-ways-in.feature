lonc agrees with today's londs on a session key inside TLS, and with the lond of its own machine through a
private file; it asks londs for their version and tells them which of their hosts is meant. Londs of the
first releases are served as before. Certificates that `loncapa_apache.conf` names are used from now on:
see `docs/tls.rst`, and `loncAllowInsecure` for a cluster that has no old lond any more.
