"""Files of tables: their bytes in chunks, delimited text, JSON Lines and Parquet."""
