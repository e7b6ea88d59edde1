`lonc status` names hosts that lose requests (with the causes of the last five minutes), that are slow (`loncSlowAnswer`,
and slower than usual), whose address leads to another host's lond, and that have no socket.
