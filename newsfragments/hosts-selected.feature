`lonc hosts` says why a host is ill, shows the worst first and page by page, and takes `--problems`, `--state` and `--limit`.
