# openlepton serve, as a stranger-proof container: slim, no root, no writable file system needed.
#   docker build -t openlepton .
#   docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges -p 8000:8000 \
#     -e OPENLEPTON_TOKEN=a-token-of-16-characters-or-more openlepton
# What follows the image's name are the arguments of `openlepton serve`: models, --queue, --jobs, ...

FROM python:3.13-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY openlepton openlepton
RUN python -m venv /opt/openlepton && /opt/openlepton/bin/pip install --no-cache-dir '.[serve]'

FROM python:3.13-slim
COPY --from=build /opt/openlepton /opt/openlepton
ENV PATH=/opt/openlepton/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=3)"]
ENTRYPOINT ["openlepton", "serve", "--host", "0.0.0.0"]
