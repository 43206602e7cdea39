# The one image of every role: `docker run everlong worker ingest`, `everlong api`, ... Settings come from EVERLONG_ variables.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d
FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin everlong \
 && mkdir /bundle /data && chown everlong:everlong /bundle /data
# PyTorch's package index of the CPU builds; without it torch's default wheel is taken, with several GB of CUDA on x86-64.
ARG TORCH_INDEX=""
WORKDIR /opt/source
COPY constraints.txt pyproject.toml ./
# Dependencies first, beside empty packages: a change of our code makes one small layer anew.
RUN python -m venv /opt/everlong \
 && mkdir features models stream infra research \
 && touch README.md features/__init__.py models/__init__.py stream/__init__.py infra/__init__.py research/__init__.py \
 && /opt/everlong/bin/python -m pip install -qq --no-cache-dir --disable-pip-version-check --progress-bar off \
      ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt .
COPY README.md LICENSE ./
COPY features features
COPY models models
COPY stream stream
COPY infra infra
COPY research research
RUN /opt/everlong/bin/python -m pip install -qq --no-cache-dir --disable-pip-version-check --no-deps --force-reinstall .
ENV PATH=/opt/everlong/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    EVERLONG_DATA_DIR=/data \
    EVERLONG_BUNDLE=/bundle/current
USER everlong
WORKDIR /data
ENTRYPOINT ["everlong"]
CMD ["--help"]
