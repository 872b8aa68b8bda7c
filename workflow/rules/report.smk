# The whole study on one page.

CONCEPTS = expand(
    "{fusion}/concepts/seed-{seed}/{modality}",
    fusion=PARAMS.study.fusions,
    seed=PARAMS.study.seeds,
    modality=PARAMS.study.modalities,
)
RUNS = [
    *CONCEPTS,
    *expand(
        "{fusion}/{method}/seed-{seed}",
        fusion=PARAMS.study.fusions,
        method=PARAMS.study.compared,
        seed=PARAMS.study.seeds,
    ),
]


rule report:
    input:
        key="<keys>/report.json",
        manifest="<data>/manifest.json",
        shards="<data>/shards.json",
        inspection="<data>/inspection.json",
        runs=expand("<runs>/{run}/run.json", run=RUNS),
        evaluations=expand("<evaluations>/{run}/evaluation.json", run=RUNS),
        quarantine=ancient("<data>/quarantine.parquet"),
        sheet=ancient("<data>/contact_sheet.png"),
        history=ancient(expand("<runs>/{run}/history.parquet", run=RUNS)),
        predictions=ancient(expand("<evaluations>/{run}/predictions.parquet", run=CONCEPTS)),
    output:
        index="reports/report.json",
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
