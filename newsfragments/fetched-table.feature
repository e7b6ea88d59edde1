With `^server[:https]` lines in `hosts.tab` lonc fetches the host table from the cluster, keeps it in
`dns_hosts.tab`, and refuses what is no host table. `lonTabDir` has to be writable for that. See
`docs/table.rst`.
