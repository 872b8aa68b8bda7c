# The inputs of rules that depend on parameters, or on what is up to date.


@cache
def get_made():
    """The files that the jobs of the plan make, those of --forcerun among them."""
    return MADE | keys.forced(Graph(PARAMS), workflow.dag_settings.forcerun)


def settled(paths):
    """Results whose times do not matter, for their content is up to date; of others, that they are made is a reason."""

    def get_files(wildcards):
        found = paths(wildcards) if callable(paths) else paths
        files = []
        for file in [found] if isinstance(found, str) else found:
            if not callable(paths):
                file = file.format(**wildcards)
            for name, folder in FOLDERS.items():
                file = file.replace(f"<{name}>", folder)
            files.append(file if file in get_made() else ancient(file))
        return files

    return get_files


# Snakemake takes {x} in a path for a wildcard and knows no way to write it otherwise: there the key alone, which has
# the content's checksum, says when they have changed.
def get_annotations(wildcards):
    path = PARAMS.dataset.annotations[wildcards.annotations]
    if "{" in path:
        return []
    return path


def get_prerequisites(file):
    """Where a method reads finished runs: that file of each, the concepts' and plain joint training's."""
    runs = [
        *expand("<runs>/{{fusion}}/concepts/{modality}/seed-{{seed}}", modality=PARAMS.study.modalities),
        "<runs>/{fusion}/joint/seed-{seed}",
    ]
    return lambda wildcards: (
        [f"{run}/{file}".format(**wildcards) for run in runs] if PARAMS.reads_runs(wildcards.method) else []
    )
