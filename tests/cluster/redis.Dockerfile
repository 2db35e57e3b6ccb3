# Debian's Redis in the place of the official image, which a machine without an image registry cannot have.
FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends redis-server \
 && rm -rf /var/lib/apt/lists/*
