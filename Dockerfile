# An image that runs the demo, and competitions of your own (docs/commands.md, section Containers).
# The packages are those of requirements.lock; their layer is made again only where the lock or the Makefile changes.
FROM python:3.13-slim

# Debian's newest make and git are as good as today's.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home --shell /bin/bash podium \
    && install --directory --owner podium --group podium /opt/podium
USER 1000
WORKDIR /opt/podium

# The package is installed as an editable one: its code, and the texts that its build asks for, come after.
COPY --chown=podium Makefile environment.mk pyproject.toml requirements.lock ./
COPY --chown=podium src/podium/podium.mk src/podium/
# cpu: 1 GB of packages instead of 5, and no GPU. The builds of the lock train on both.
ARG TORCH_BACKEND=
RUN touch README.md LICENSE src/podium/__init__.py \
    && UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1 make setup TORCH_BACKEND="$TORCH_BACKEND"
ENV PATH=/opt/podium/.venv/bin:$PATH PYTHON=/opt/podium/.venv/bin/python

COPY --chown=podium . .
CMD ["make", "demo"]
