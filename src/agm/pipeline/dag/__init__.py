"""The graph of jobs, the provenance of each result, and the two engines that run the jobs."""
