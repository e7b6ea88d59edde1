`lonc-lond HOST STATE` makes a lond of the embedded cluster stop, hang, slow down, hang up or refuse, so that one can see what lonc says of it.
