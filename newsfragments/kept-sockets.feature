`systemctl restart lonc` refuses no clients: systemd keeps the listening sockets of the hosts, new clients wait in the backlog, and the next lonc process uses the sockets again.
