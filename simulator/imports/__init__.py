"""From a stranger's tables to a data set: read, recognised, cleaned, written."""
