Hosts without an address in `hosts.tab` are looked up when they are connected to, IPv4 and IPv6, and again
every five minutes (`loncNameLifetime`). A name that has other addresses then counts as a changed host.
