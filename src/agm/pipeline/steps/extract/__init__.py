"""Step `extract`: turn raw media files into tensors of one fixed shape."""
