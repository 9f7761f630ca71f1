# The service image. Docker: `docker build -t budeval .`  Elsewhere: --build-arg BASE_IMAGE=<python 3.11 with venv>.
# The engine is another image: engines/opencompass/Dockerfile.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
COPY requirements-service.lock /src/
# The package `ansible` brings every collection there is; budeval uses kubernetes.core alone.
RUN set -eu; python3 -m venv /opt/budeval; \
    /opt/budeval/bin/pip install --no-cache-dir --require-hashes -r /src/requirements-service.lock; \
    site=/opt/budeval/lib/python3.11/site-packages; \
    find "$site/ansible_collections" -mindepth 1 -maxdepth 1 ! -name kubernetes ! -name __init__.py -exec rm -rf {} +; \
    /opt/budeval/bin/pip uninstall --yes --quiet pip setuptools
COPY budeval /opt/budeval/app/budeval
RUN /opt/budeval/bin/python -m compileall -q /opt/budeval/app

FROM ${BASE_IMAGE}
COPY --from=build /opt/budeval /opt/budeval
RUN install -d -o 65532 -g 65532 -m 0700 /var/lib/budeval
# Writable at run time: /var/lib/budeval (a volume, for a SQLite record), /dev/shm (private data of playbook runs) and /tmp.
ENV PATH=/opt/budeval/bin:$PATH PYTHONPATH=/opt/budeval/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp LANG=C.UTF-8 BUDEVAL_HOST=0.0.0.0 BUDEVAL_DATABASE_URL=sqlite:////var/lib/budeval/record.sqlite
USER 65532:65532
WORKDIR /var/lib/budeval
EXPOSE 8099
ENTRYPOINT ["python", "-m", "budeval"]
