# The whole study on one page.

CONCEPTS = expand(
    "{fusion}/concepts/{modality}/seed-{seed}",
    fusion=PARAMS.study.fusions,
    seed=PARAMS.study.seeds,
    modality=PARAMS.study.modalities,
)
RUNS = [
    *CONCEPTS,
    *expand(
        "{fusion}/{method}/seed-{seed}",
        fusion=PARAMS.study.fusions,
        method=PARAMS.study.methods,
        seed=PARAMS.study.seeds,
    ),
]


rule report:
    input:
        key="<keys>/report.json",
        manifest=settled("<data>/manifest.json"),
        shards=settled("<data>/shards.json"),
        inspection=settled("<data>/inspection.json"),
        runs=settled(expand("<runs>/{run}/run.json", run=RUNS)),
        evaluations=settled(expand("<evaluations>/{run}/evaluation.json", run=RUNS)),
        quarantine=settled("<data>/quarantine.parquet"),
        sheet=settled("<data>/contact_sheet.png"),
        history=settled(expand("<runs>/{run}/history.parquet", run=RUNS)),
        predictions=settled(expand("<evaluations>/{run}/predictions.parquet", run=CONCEPTS)),
    output:
        index="reports/report.json",
        record="records/reports/report.json",
        page="reports/index.html",
        metrics="reports/metrics.json",
        results="reports/results.parquet",
        summary="reports/summary.txt",
    log:
        "logs/report.log",
    message:
        "agm report"
    shell:
        "agm report 2> {log}"
