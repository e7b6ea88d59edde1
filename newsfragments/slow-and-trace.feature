The `lonc` command shows what slow requests spent their time on (`lonc slow`), each request when it ends (`lonc trace`) and the individual connections to a host (`lonc hosts HOST`).
