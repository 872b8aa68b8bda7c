# From the manifest to tensors, part by part, and to the shards that training reads; a look at them.


rule extract:
    input:
        key="<keys>/extract/{modality}/{part}.json",
        manifest="<data>/manifest.json",
        clips=ancient("<data>/manifest.parquet"),
    output:
        index="<data>/features/{modality}/part-{part}.json",
        tensors="<data>/features/{modality}/part-{part}.parquet",
    log:
        "logs/extract/{modality}/{part}.log",
    threads: 2  # processes of their own, so that a file that crashes a decoder costs one clip
    message:
        "agm extract {wildcards.modality} {wildcards.part}"
    shell:
        "agm extract {wildcards.modality} {wildcards.part} 2> {log}"


rule shard:
    input:
        key="<keys>/shard.json",
        manifest="<data>/manifest.json",
        parts=expand(
            "<data>/features/{modality}/part-{part}.json",
            modality=PARAMS.study.modalities,
            part=PARAMS.parts,
        ),
        clips=ancient("<data>/manifest.parquet"),
        rejected=ancient("<data>/rejected.parquet"),
        tensors=ancient(
            expand(
                "<data>/features/{modality}/part-{part}.parquet",
                modality=PARAMS.study.modalities,
                part=PARAMS.parts,
            )
        ),
    output:
        index="<data>/shards.json",
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
        manifest="<data>/manifest.json",
        index="<data>/shards.json",
        clips=ancient("<data>/manifest.parquet"),
        quarantine=ancient("<data>/quarantine.parquet"),
        shards=ancient("<data>/shards"),
        parts=ancient(
            expand(
                "<data>/features/{modality}/part-{part}.json",
                modality=PARAMS.study.modalities,
                part=PARAMS.parts,
            )
        ),
    output:
        index="<data>/inspection.json",
        sheet="<data>/contact_sheet.png",
        duplicates="<data>/duplicates.parquet",
    log:
        "logs/inspect.log",
    message:
        "agm inspect"
    shell:
        "agm inspect 2> {log}"
