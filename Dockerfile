# One file, three images: docker build --target gateway|trainer|evaluator .
# Each holds the whole package; the locked extra decides what it can do. The gateway has no torch.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY policies policies
COPY gateway gateway
COPY trainer trainer
COPY evaluator evaluator
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${PYTHON_IMAGE} AS environment
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/tunegate
COPY requirements /locks
COPY --from=wheel /wheels /wheels

FROM environment AS gateway-environment
RUN /opt/tunegate/bin/python /locks/install.py gateway \
    && /opt/tunegate/bin/pip install --no-deps /wheels/*.whl

# --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu: images for machines without a GPU, 4 GB smaller
FROM environment AS trainer-environment
ARG TORCH_INDEX=
RUN /opt/tunegate/bin/python /locks/install.py train weights \
    && /opt/tunegate/bin/pip install --no-deps /wheels/*.whl

FROM environment AS evaluator-environment
ARG TORCH_INDEX=
RUN /opt/tunegate/bin/python /locks/install.py eval weights \
    && /opt/tunegate/bin/pip install --no-deps /wheels/*.whl

FROM ${PYTHON_IMAGE} AS runtime
ENV PATH=/opt/tunegate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_WAIT_POLICY=PASSIVE \
    TOKENIZERS_PARALLELISM=false \
    HF_HUB_DISABLE_TELEMETRY=1 \
    DO_NOT_TRACK=1
# A volume that is mounted on these folders starts with their owner.
RUN useradd --system --uid 10001 --create-home tunegate \
    && install --directory --owner=tunegate /var/lib/tunegate/store /var/lib/tunegate/cache \
        /var/lib/tunegate/work
WORKDIR /var/lib/tunegate
USER tunegate

FROM runtime AS gateway
COPY --from=gateway-environment /opt/tunegate /opt/tunegate
# 9100 is the operator's: /readyz and /metrics, without a key.
EXPOSE 8000 9100
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
# Migrates the database, then serves.
CMD ["tunegate", "serve", "--host", "0.0.0.0", "--port", "8000", "--operations-host", "0.0.0.0", "--operations-port", "9100"]

FROM runtime AS trainer
COPY --from=trainer-environment /opt/tunegate /opt/tunegate
CMD ["celery", "-A", "trainer.tasks", "worker", "-Q", "train", "--concurrency", "1", "--pool", "prefork", \
    "--without-gossip", "--without-mingle", "--without-heartbeat"]

FROM runtime AS evaluator
COPY --from=evaluator-environment /opt/tunegate /opt/tunegate
CMD ["celery", "-A", "evaluator.tasks", "worker", "-Q", "eval", "--concurrency", "1", "--pool", "prefork", \
    "--without-gossip", "--without-mingle", "--without-heartbeat"]
