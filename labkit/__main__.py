"""`python -m labkit`, where the command `labkit` is not on the path."""

from labkit.cli import app

if __name__ == "__main__":
    app()
