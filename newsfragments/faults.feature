A logged fault inside lonc is shown as a warning in `lonc status` for an hour; `faults` and `last_fault` are new in the result of `about`.
