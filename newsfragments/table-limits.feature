The cluster's host table has limits on its length and its growth (``loncTableLimit``, ``loncTableGrowth``). Hosts beyond what the limit of open files leaves room
for are not served, so that lonc can still be managed and stopped. Many bad lines of a table are one line in the log.
Where the limit of open files is low, clients leave some to the management port and the disk.
