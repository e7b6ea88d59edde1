`--http ENDPOINT` (`loncHTTP`) serves a status page, metrics for Prometheus, `/healthz` and `/readyz`. It can be changed by a reload. `make run` serves them at http://127.0.0.1:8663/.
