# From the manifest to tensors, part by part, and to the shards that training reads; a look at them.


rule extract:
    input:
        key="<keys>/extract/{modality}/{part}.json",
        manifest=settled("<data>/manifest.json"),
        clips=settled("<data>/manifest.parquet"),
    output:
        index="<data>/features/{modality}/part-{part}.json",
        record="records/<data>/features/{modality}/part-{part}.json",
        tensors="<data>/features/{modality}/part-{part}.parquet",
    log:
        "logs/extract/{modality}/{part}.log",
    threads: 2  # processes of their own, so that a file that crashes a decoder quarantines one clip
    message:
        "agm extract {wildcards.modality} {wildcards.part}"
    shell:
        "agm extract {wildcards.modality} {wildcards.part} 2> {log}"


rule shard:
    input:
        key="<keys>/shard.json",
        manifest=settled("<data>/manifest.json"),
        parts=settled(
            expand(
                "<data>/features/{modality}/part-{part}.json",
                modality=PARAMS.study.modalities,
                part=range(PARAMS.num_parts),
            )
        ),
        clips=settled("<data>/manifest.parquet"),
        quarantined=settled("<data>/quarantine-ingest.parquet"),
        tensors=settled(
            expand(
                "<data>/features/{modality}/part-{part}.parquet",
                modality=PARAMS.study.modalities,
                part=range(PARAMS.num_parts),
            )
        ),
    output:
        index="<data>/shards.json",
        record="records/<data>/shards.json",
        shards=directory("<data>/shards"),
        quarantine="<data>/quarantine.parquet",
    log:
        "logs/shard.log",
    message:
        "agm shard"
    shell:
        "agm shard 2> {log}"


rule inspect:
    input:
        key="<keys>/inspect.json",
        manifest=settled("<data>/manifest.json"),
        index=settled("<data>/shards.json"),
        clips=settled("<data>/manifest.parquet"),
        quarantine=settled("<data>/quarantine.parquet"),
        shards=settled("<data>/shards"),
        parts=settled(
            expand(
                "<data>/features/{modality}/part-{part}.json",
                modality=PARAMS.study.modalities,
                part=range(PARAMS.num_parts),
            )
        ),
    output:
        index="<data>/inspection.json",
        record="records/<data>/inspection.json",
        sheet="<data>/contact_sheet.png",
        duplicates="<data>/duplicates.parquet",
    log:
        "logs/inspect.log",
    message:
        "agm inspect"
    shell:
        "agm inspect 2> {log}"
