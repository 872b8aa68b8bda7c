# From raw files to the manifest.

# The annotations of a demo set are made here. One's own are not ours to touch: their content counts, not their time.
ANNOTATIONS = PARAMS.dataset.annotations if PARAMS.dataset.generated else ancient(PARAMS.dataset.annotations)


rule generate:
    input:
        key="<keys>/generate/{set}.json",
    output:
        index="data/raw/{set}/generated.json",
        labels="data/raw/{set}/labels.csv",
        clips=directory("data/raw/{set}/clips"),
    log:
        "logs/generate/{set}.log",
    threads: 64  # as many as there are
    message:
        "agm generate {wildcards.set}"
    shell:
        "agm generate {wildcards.set} 2> {log}"


rule list:
    input:
        key="<keys>/list.json",
        annotations=ANNOTATIONS,
    output:
        index="<data>/listing.json",
        files="<data>/listing.parquet",
    log:
        "logs/list.log",
    message:
        "agm list"
    shell:
        "agm list 2> {log}"


rule ingest:
    input:
        key="<keys>/ingest.json",
        listing="<data>/listing.json",
        annotations=ANNOTATIONS,
        files=ancient("<data>/listing.parquet"),
    output:
        index="<data>/manifest.json",
        clips="<data>/manifest.parquet",
        rejected="<data>/rejected.parquet",
    log:
        "logs/ingest.log",
    threads: 64  # as many as there are
    message:
        "agm ingest"
    shell:
        "agm ingest 2> {log}"
