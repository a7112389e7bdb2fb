# docker build -t listener .                       the daemon and its commands
# docker build -t listener-demo --target demo .   the same with `listener demo` on an embedded PostgreSQL
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
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
# The dependencies change less often than the code, so they are a layer of their own.
COPY pyproject.toml uv.lock ./
RUN /opt/uv/bin/uv sync --frozen --no-dev --no-install-project --python python3
COPY . .
RUN /opt/uv/bin/uv sync --frozen --no-dev --no-editable --python python3

FROM build AS build-demo
RUN /opt/uv/bin/uv sync --frozen --no-dev --no-editable --extra demo --python python3

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
COPY --from=build-demo /opt/listener /opt/listener
CMD ["demo"]

FROM base AS listener
COPY --from=build /opt/listener /opt/listener
CMD ["run"]
