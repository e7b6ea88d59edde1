Clients without a process id known to the kernel, such as those in containers, are scheduled and limited by user id instead of per connection.
