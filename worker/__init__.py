"""The hands of the service: Celery tasks that carry a run from its start to its end."""
