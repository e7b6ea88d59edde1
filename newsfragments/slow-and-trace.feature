The `lonc` command shows where the time of slow requests went (`lonc slow`), each request as it ends (`lonc trace`) and the connections to a host one by one (`lonc hosts HOST`).
