# From raw files to the manifest.

# The annotations of a demo set are made here. One's own are not ours to touch: their content counts, not their time.
# Snakemake takes {x} in a path for a wildcard and knows no way to write it otherwise: there the key alone, which has
# the content's checksum, says when they have changed.
def get_annotations(wildcards):
    path = PARAMS.dataset.annotations[wildcards.annotations]
    if "{" in path:
        return []
    return path if PARAMS.dataset.generated else ancient(path)


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


rule annotations:
    input:
        key="<keys>/annotations/{annotations}.json",
        file=get_annotations,
    output:
        index="<data>/annotations/{annotations}.json",
    log:
        "logs/annotations/{annotations}.log",
    message:
        "agm annotations {wildcards.annotations}"
    shell:
        "agm annotations {wildcards.annotations} 2> {log}"


rule list:
    input:
        key="<keys>/list.json",
        annotations=expand("<data>/annotations/{annotations}.json", annotations=PARAMS.dataset.annotations),
    output:
        index="<data>/listing.json",
        clips="<data>/clips.parquet",
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
        annotated=ancient("<data>/clips.parquet"),
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
