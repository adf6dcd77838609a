"""The archive: the log as Parquet files, one per committed range."""
