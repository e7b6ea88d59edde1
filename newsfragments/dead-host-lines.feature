A DEAD host is logged when it becomes DEAD, with the reason, when it answers again, and once an hour meanwhile, however often it is probed.
