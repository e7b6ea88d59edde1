# lonc in a container, not as root. Mount LON-CAPA's folders at the paths given in loncapa.conf:
#
#   docker build -t lonc .
#   docker run --user 1000 -v /etc/httpd/conf:/etc/httpd/conf:ro -v /home/httpd:/home/httpd lonc
FROM python:3.11-slim AS build
WORKDIR /source
COPY . .
# Makes twistd write its plugin cache, which it has no permission for at run time.
RUN python -m venv /opt/lonc && /opt/lonc/bin/pip install --no-cache-dir '.[top]' \
    && /opt/lonc/bin/twistd --help >/dev/null

FROM python:3.11-slim
COPY --from=build /opt/lonc /opt/lonc
COPY tap/container.sh /opt/lonc/bin/
ENV PATH=/opt/lonc/bin:$PATH PYTHONDONTWRITEBYTECODE=1
RUN useradd --system --no-create-home --shell /usr/sbin/nologin lonc
USER lonc
WORKDIR /tmp
HEALTHCHECK --interval=30s --timeout=15s --start-period=30s CMD ["container.sh", "health"]
ENTRYPOINT ["container.sh", "start"]
