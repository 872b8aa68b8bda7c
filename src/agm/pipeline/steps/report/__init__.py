"""The last step: everything the study found, on one page and in two tables."""
