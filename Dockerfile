# CPU by default; for CUDA: docker build --build-arg BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04 --build-arg DEVICE=cuda .
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
ARG DEVICE=cpu
# Where pip finds a CPU build of torch: a directory or page of wheels, given at build time.
ARG TORCH_LINKS=
# Optional parts of the package, separated by commas.
ARG EXTRAS=otel,structured,gguf
RUN if ! command -v python3 >/dev/null; then \
        apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*; \
    fi
RUN python3 -m venv /opt/ift
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY ift_serve ift_serve
COPY kernels kernels
COPY training training
RUN if [ "$DEVICE" = cpu ] && [ -n "$TORCH_LINKS" ]; then export PIP_FIND_LINKS="$TORCH_LINKS"; fi; \
    /opt/ift/bin/pip install --no-cache-dir -c constraints.txt ".[$EXTRAS]"
# For this processor and those like it; on another kind, a first start compiles into the user's own cache directory.
RUN if [ "$DEVICE" = cpu ]; then /opt/ift/bin/ift-serve compile; fi

# What is in the image, with versions and licences, by a tool that is not in it.
FROM build AS inventory
RUN python3 -m venv /opt/inventory && /opt/inventory/bin/pip install --no-cache-dir 'cyclonedx-bom>=7,<8'
RUN /opt/inventory/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application \
        --output-format JSON --output-file /opt/sbom.cdx.json --validate /opt/ift/bin/python

FROM ${BASE}
RUN if ! command -v python3 >/dev/null; then \
        apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*; \
    fi; \
    groupadd --gid 10001 ift && useradd --create-home --uid 10001 --gid 10001 ift
COPY --from=build /opt/ift /opt/ift
COPY --from=inventory /opt/sbom.cdx.json /usr/share/ift-serve/sbom.cdx.json
ENV PATH=/opt/ift/bin:$PATH PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=2000
USER 10001:10001
WORKDIR /home/ift
EXPOSE 50051 9464
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s --retries=3 CMD ["ift-serve", "health", "--server", "127.0.0.1:50051"]
ENTRYPOINT ["ift-serve"]
# Inside a container the port is published on purpose; add --tls-certificate and --tls-key before exposing it further.
CMD ["serve", "--host", "0.0.0.0", "--metrics-host", "0.0.0.0", "--allow-insecure"]
