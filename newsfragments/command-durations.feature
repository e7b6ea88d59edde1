`lonc pause --for` and `lonc ask --timeout` accept `90s`, `5m`, `2h` and `1d` as well as seconds.
