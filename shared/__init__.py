"""What web and worker must agree on: runs, events, settings, and how both are kept in Redis."""
