"""The application that gunicorn loads: `web.wsgi:app`."""

from shared import settings
from web.app import create_app

app = create_app(settings.load_or_exit())
