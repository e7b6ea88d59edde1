A fault inside lonc that was logged is a warning in `lonc status` for an hour; `faults` and `last_fault` are new in what `about` gives.
