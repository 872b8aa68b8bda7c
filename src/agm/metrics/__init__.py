"""Numbers about trained models, as pure functions: arrays in, numbers out. Nothing here knows of files or steps."""
