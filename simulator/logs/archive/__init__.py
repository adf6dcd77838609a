"""The project's own archive as rows to evaluate, read by columns: no record is decoded."""
