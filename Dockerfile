# make image                                       both images: listener, and listener-demo
# docker build -t listener .                       the daemon and its commands
# docker build -t listener-demo --target demo .   the same with `listener demo` and the LML simulator
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS tools
ENV UV_PYTHON_DOWNLOADS=never \
    UV_SYSTEM_CERTS=true \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PROJECT_ENVIRONMENT=/opt/listener
WORKDIR /src
COPY .ci/uv.txt .ci/
RUN python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --quiet --no-cache-dir --disable-pip-version-check -r .ci/uv.txt

# The libraries change less often than the code, so they have their own layer.
FROM tools AS libraries
COPY pyproject.toml uv.lock ./
RUN /opt/uv/bin/uv sync --frozen --no-dev --no-install-project --python python3 \
    && rm /opt/listener/.lock

FROM libraries AS demo-libraries
RUN /opt/uv/bin/uv sync --frozen --no-dev --no-install-project --extra demo --python python3 \
    && rm /opt/listener/.lock

FROM libraries AS code
COPY . .
RUN /opt/uv/bin/uv pip install --quiet --no-deps --python /opt/listener --prefix /opt/code . \
    && rm -f /opt/code/.lock

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/listener/bin:$PATH \
    PYTHONUNBUFFERED=1
# A name for the uid: libpq and the embedded PostgreSQL look it up.
RUN useradd --uid 10001 --user-group --create-home --shell /usr/sbin/nologin listener
WORKDIR /home/listener
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["listener"]

FROM base AS demo
COPY --from=demo-libraries /opt/listener /opt/listener
COPY --from=code /opt/code /opt/listener
CMD ["demo"]

FROM base AS listener
COPY --from=libraries /opt/listener /opt/listener
COPY --from=code /opt/code /opt/listener
# A container that runs another command has nothing to ask, and is healthy.
HEALTHCHECK --interval=10s --timeout=5s --retries=2 --start-period=30s \
    CMD ["python", "-m", "listener.ready"]
CMD ["run"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="listener" \
    org.opencontainers.image.description="Keeps a radio station's catalogue and its cross-catalogue identities together." \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
