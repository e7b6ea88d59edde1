When the embedded cluster is started again, londs with a fault set by `lonc-lond` are listed: they keep it until set to `well`.
