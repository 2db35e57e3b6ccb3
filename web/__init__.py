"""The doors of the service: HTTP, WebSocket and the viewer page."""
