"""Data sets: what users did with which items, as a folder of Parquet that training reads."""
