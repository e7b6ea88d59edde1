`--http ENDPOINT` (`loncHTTP`) serves a status page, metrics for Prometheus, and `/healthz` and `/readyz`; a reload moves it. `make run` has it at http://127.0.0.1:8663/.
