A host that was never tried is shown as `untried`, not `up`: `tried` is new in the JSON of hosts, `untried` in the totals of
`lonc status --json`, whose `up` leaves these out.
