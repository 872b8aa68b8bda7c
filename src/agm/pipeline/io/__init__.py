"""Files and their formats: Parquet, tensors, media, pickles."""
