"""One module a verb; each has `run(config)`. The only package that prints."""
