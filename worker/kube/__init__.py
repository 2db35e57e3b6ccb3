"""Executes runs as Jobs of a Kubernetes cluster."""
