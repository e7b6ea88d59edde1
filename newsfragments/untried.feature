A host that was never tried is shown as `untried` instead of `up`: `tried` is new in the JSON of hosts, `untried` in the totals of `lonc status --json`, whose `up` does not include these.
