`loncSocketNames` makes sockets by host name, for programs of later LON-CAPA releases, instead of those by
host id or beside them. Their requests say with `sethost:<id>:` which host they mean. See `docs/table.rst`.
