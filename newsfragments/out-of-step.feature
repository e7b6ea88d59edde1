That answers of a lond may have reached the wrong clients is critical in `lonc status` for an hour; `astray` and `last_astray` are new in the status of a host.
