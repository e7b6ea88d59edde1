Host ids on one machine share their connections to its lond, at most `loncMaxConnections` for all of them together, and its retries; they take turns
where requests wait. Their requests begin with `sethost:<id>:` where the lond knows it. Hosts of a cluster of its own (`--standalone`) may have one address.
