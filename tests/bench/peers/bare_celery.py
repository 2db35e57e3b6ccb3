"""A peer: a Celery app that can do nothing, to be idle beside the worker and Flower."""

import os

from celery import Celery

app = Celery("bare", broker=os.environ["BENCH_REDIS"])
