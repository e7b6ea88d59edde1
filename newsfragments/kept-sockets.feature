`systemctl restart lonc` refuses no client: systemd keeps the hosts' listening sockets, new clients wait in the backlog, and
the next lonc takes the sockets back.
