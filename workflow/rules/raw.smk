# From raw files to the manifest.


rule generate:
    input:
        key="<keys>/generate/{set}.json",
    output:
        index="data/raw/{set}/generated.json",
        record="records/data/raw/{set}/generated.json",
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
        file=settled(get_annotations),
    output:
        index="<data>/annotations/{annotations}.json",
        record="records/<data>/annotations/{annotations}.json",
    log:
        "logs/annotations/{annotations}.log",
    message:
        "agm annotations {wildcards.annotations}"
    shell:
        "agm annotations {wildcards.annotations} 2> {log}"


rule list:
    input:
        key="<keys>/list.json",
        annotations=settled(
            expand("<data>/annotations/{annotations}.json", annotations=PARAMS.dataset.annotations)
        ),
        checked=ancient("<data>/raw.json"),
    output:
        index="<data>/listing.json",
        record="records/<data>/listing.json",
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
        listing=settled("<data>/listing.json"),
        annotated=settled("<data>/clips.parquet"),
        files=settled("<data>/listing.parquet"),
    output:
        index="<data>/manifest.json",
        record="records/<data>/manifest.json",
        clips="<data>/manifest.parquet",
        quarantined="<data>/quarantine-ingest.parquet",
    log:
        "logs/ingest.log",
    threads: 64  # as many as there are
    message:
        "agm ingest"
    shell:
        "agm ingest 2> {log}"
