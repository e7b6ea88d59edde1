Hosts without an address in `hosts.tab` are looked up when they are connected to, IPv4 and IPv6, and again
every five minutes (`loncNameLifetime`). A name server in trouble takes nothing from a host that answers: while
look-ups fail or hang, the last addresses serve for an hour (`loncNameGrace`), and a name that does not exist keeps
the connections that stand. An address is gone, and connections to it are closed, when three answers running do
not have it. Addresses that the table refuses, such as 0.0.0.0, are refused from a name server too.
