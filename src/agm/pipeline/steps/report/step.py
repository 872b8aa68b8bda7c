"""Aggregate the study into one page and its tables.

Reads the index, the history and the evaluation of every run of the study, the indexes of the manifest and the shards,
the quarantine table and the inspection by `agm inspect`. Refuses results that are missing or were made with other
parameters, code or data than params.yaml asks for. Writes

  reports/index.html        one page that needs nothing else: the answer, tables, figures, data, configuration
  reports/metrics.json      a few means over seeds, the columns of `dvc exp show`: for every fusion and method
                            accuracy, starvation (the largest distance from a modality's accuracy alone down to that
                            of its centred φ in the joint model) and d_<modality>, the competition strength
  reports/results.parquet   every number of every run in one long table: dataset, fusion, method or concept, seed,
                            split, metric, modality, class, value
  reports/summary.txt       the answer and the tables of results for a terminal, which are also printed

Every number on the page is a mean over seeds of the test split with a t interval, and is compared with joint training
by a paired test. Runs that failed are listed first, with what is known about them; the report covers the other runs.
"""

from typing import Any

from agm.pipeline.config import Params
from agm.pipeline.dag.graph import Job
from agm.pipeline.io.files import checksums, replacing, write_json, write_parquet
from agm.pipeline.runtime.progress import show
from agm.pipeline.runtime.terminal import harmless
from agm.pipeline.steps.report import tables
from agm.pipeline.steps.report.answer import Answer, answer, caution
from agm.pipeline.steps.report.collect import Study, collect
from agm.pipeline.steps.report.failures import failures
from agm.pipeline.steps.report.page import render
from agm.pipeline.steps.report.results import Results, metrics, tidy

PLAIN_TABLES = (tables.accuracies, tables.monomodal, tables.permutation, tables.published, tables.competition)
"""The tables that a terminal shows."""


def run(params: Params, job: Job) -> dict[str, Any]:
    """Write the outputs of `job`.

    Returns:
        The verdict on every fusion, the leaks between splits, the commands of the runs that failed, the numbers of
        runs and clips, and the checksums of the tables.

    Raises:
        AgmError: when a result is missing, damaged or not what params.yaml asks for.
    """
    page, metrics_file, results_file, summary = job.outputs
    study = collect(params)
    table = tidy(study)
    results = Results(table, study)
    answers = [answer(study, results, fusion) for fusion in params.study.fusions]
    # Before anything is written: an error here leaves the results of before.
    html = render(study, results, answers)
    write_parquet(results_file, table)
    write_json(metrics_file, metrics(study, results))
    with replacing(page) as temporary:
        temporary.write_text(html, encoding="utf-8")
    text = harmless(f"{plain(study, results, answers)}\n\nThe report: {page}")
    with replacing(summary) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")
    show(text)
    return {
        "answers": {words.fusion: words.verdict for words in answers},
        "leaks": study.inspection["leaks"],
        "failed": [run.command for run in study.failed],
        "runs": len(study.runs),
        "quarantined": study.shards["quarantined"],
        "sha256": checksums(page.parent, [metrics_file.name, results_file.name, summary.name]),
    }


def plain(study: Study, results: Results, answers: list[Answer]) -> str:
    """The answer and the tables of results for a terminal."""
    failed = failures(study)
    blocks = [f"{study.params.dataset.name}, study {study.params.study.name}: {tables.intro(study)}"]
    if failed:
        blocks.append(failed.plain())
    warning = caution(study)
    for words in answers:
        verdict = f"{words.fusion}: {words.verdict}"
        blocks.append(f"{verdict}\n{warning}" if warning else verdict)
        for make_table in PLAIN_TABLES:
            table = make_table(study, results, words.fusion)
            # Some tables do not exist for a single modality.
            if table is not None:
                blocks.append(table.plain())
    return "\n\n".join(blocks)
