`lonc-lond HOST STATE` makes a lond of the embedded cluster stop, hang, answer slowly, disconnect or refuse connections, to see how lonc reports it.
