"""The command that writes the page which people look at."""

import typer

commands = typer.Typer()
