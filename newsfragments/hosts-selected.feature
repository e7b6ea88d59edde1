`lonc hosts` shows why a host has problems, lists the worst first and page by page, and supports `--problems`, `--state` and `--limit`.
