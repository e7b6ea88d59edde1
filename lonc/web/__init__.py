"""
The page, the metrics and the answers for health checks: GET and HEAD only, nothing changes here.

What it shows comes from the same reports as the management port's answers. It is open to every
local user, so no client's and no command's data pass through here.
"""
