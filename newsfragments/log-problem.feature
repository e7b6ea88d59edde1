A log or a status file that cannot be written is a problem that `lonc status` names until it can be.
