"""The command line: starts the whole service on one machine and talks to a running one."""
