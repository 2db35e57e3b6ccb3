# Three images that share their layers, each with user 1000, no build tools and no need to write to its root:
#
#   docker build -t nextflow-controller .                                      web, worker, reconciler or Flower
#   docker build -t nextflow-controller-nextflow --target nextflow .           Nextflow: a run's head, and its tasks
#   docker build -t nextflow-controller-worker-local --target worker-local .   a worker that runs Nextflow beside it

FROM debian:bookworm-slim AS base
# Without it Java takes no file name but an ASCII one.
ENV LANG=C.UTF-8
RUN groupadd --gid 1000 nextflow \
 && useradd --uid 1000 --gid nextflow --create-home --shell /bin/bash nextflow


FROM base AS python
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*


FROM python AS locked
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-venv
# A pip beside the virtual environment, not in it: the images get the latter.
RUN python3 -m venv /opt/installer && python3 -m venv --without-pip /opt/nfctl
COPY requirements/run.txt /build/
RUN /opt/installer/bin/pip --no-cache-dir --python /opt/nfctl/bin/python \
    install --no-deps --require-hashes --progress-bar off -r /build/run.txt \
 && /opt/installer/bin/pip --python /opt/nfctl/bin/python check


# Under a root of its own, so that a change of the project is a small layer over its libraries.
FROM locked AS project
COPY LICENSE README.md pyproject.toml setup.cfg /build/
COPY shared /build/shared
COPY web /build/web
COPY worker /build/worker
COPY nfctl /build/nfctl
RUN /opt/installer/bin/pip --no-cache-dir --python /opt/nfctl/bin/python \
    install --no-deps --no-build-isolation --root /project /build
COPY examples /project/opt/nfctl/examples


# setuptools is in the lock to build the project, and done with.
FROM locked AS libraries
RUN /opt/installer/bin/pip --python /opt/nfctl/bin/python uninstall --yes setuptools


# procps brings `ps`, which Nextflow's tasks use to measure themselves. Java links its manual pages into a folder that
# slim images do not have.
FROM base AS java
RUN mkdir --parents /usr/share/man/man1 \
 && apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates gawk openjdk-17-jre-headless procps \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*


FROM java AS jars
RUN apt-get update \
 && apt-get install --yes --no-install-recommends maven
COPY nfctl/pom.xml /build/
RUN mvn --batch-mode --no-transfer-progress --strict-checksums --file=/build/pom.xml \
    dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=/opt/nextflow/lib


# No entry point: Nextflow starts its tasks' pods with arguments alone. The launcher execs java, which gets the signals.
FROM java AS nextflow
COPY --from=jars /opt/nextflow/lib /opt/nextflow/lib
COPY --chmod=755 nfctl/nextflow.bash /opt/nextflow/nextflow
RUN ln -s /opt/nextflow/nextflow /usr/local/bin/nextflow
LABEL org.opencontainers.image.title="Nextflow" \
      org.opencontainers.image.description="Nextflow 24.10.0 on Java 17, as a run's head and for its tasks" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 1000:1000
WORKDIR /home/nextflow
STOPSIGNAL SIGTERM
CMD ["nextflow", "-version"]


FROM nextflow AS worker-local
USER root
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* \
 && install --directory --owner=1000 --group=1000 --mode=700 /data
COPY --from=libraries /opt/nfctl /opt/nfctl
COPY --from=project /project /
ENV PATH=/opt/nfctl/bin:$PATH PYTHONUNBUFFERED=1 DATA_DIR=/data PIPELINES_DIR=/opt/nfctl/examples
LABEL org.opencontainers.image.title="Nextflow Controller, with Nextflow" \
      org.opencontainers.image.description="The worker that runs Nextflow on its own machine" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 1000:1000
WORKDIR /opt/nfctl
CMD ["python", "-m", "celery", "-A", "worker.app", "--skip-checks", "worker", "--without-mingle", "--without-gossip", \
     "-n", "worker@%h", "-Q", "runs", "-P", "prefork", "-c", "1"]


FROM python AS service
RUN install --directory --owner=1000 --group=1000 --mode=700 /data
COPY --from=libraries /opt/nfctl /opt/nfctl
COPY --from=project /project /
# HOST is left to whoever starts it: on any address but loopback every process wants AUTH_TOKENS too.
ENV PATH=/opt/nfctl/bin:$PATH PYTHONUNBUFFERED=1 DATA_DIR=/data PIPELINES_DIR=/opt/nfctl/examples
LABEL org.opencontainers.image.title="Nextflow Controller" \
      org.opencontainers.image.description="Runs Nextflow pipelines one at a time and streams their progress and log" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 1000:1000
# Python looks for modules where it is started: not where pipelines can write.
WORKDIR /opt/nfctl
EXPOSE 8000
STOPSIGNAL SIGTERM
CMD ["python", "-m", "gunicorn", "-c", "python:web.gunicorn_conf", "web.wsgi:app"]
