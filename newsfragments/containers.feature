Clients whose process the kernel does not tell, as those in containers, take turns and share places by their user id, not each connection for itself.
