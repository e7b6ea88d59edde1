A log or status file that cannot be written is shown as a problem by `lonc status` until it can be.
