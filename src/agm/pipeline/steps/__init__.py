"""The steps of the DAG, one folder each: every one writes the outputs of a job, and says what they are.

A step is a module with a function `run(params, job) -> summary`. The modules are named here and not imported: some
take seconds, because of torch.
"""

MODULES: dict[str, str] = {
    "generate": "agm.pipeline.steps.generate.step",
    "annotations": "agm.pipeline.steps.ingest.annotations",
    "list": "agm.pipeline.steps.ingest.listing",
    "ingest": "agm.pipeline.steps.ingest.step",
    "extract": "agm.pipeline.steps.extract.step",
    "shard": "agm.pipeline.steps.shard.step",
    "inspect": "agm.pipeline.steps.inspect.step",
    "train": "agm.pipeline.steps.train.step",
    "concept": "agm.pipeline.steps.train.step",
    "evaluate": "agm.pipeline.steps.evaluate.step",
    "evaluate_concept": "agm.pipeline.steps.evaluate.step",
    "report": "agm.pipeline.steps.report.step",
}
"""The module of each step, in the order of the DAG."""
