Londs of the embedded cluster that `lonc-lond` has made ill are named when it is started again: they stay ill until they are made well.
