If answers of a lond may have reached the wrong clients, `lonc status` reports this as critical for an hour; `astray` and `last_astray` are new in the status of a host.
