"""The steps of the DAG, a folder each, in the order of the data: generate, ingest, extract, shard, inspect, train,
evaluate, report."""
