"""A peer: a Flask app that says hello, to be idle beside the web processes."""

from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello() -> str:
    """It says hello."""
    return "hello"
