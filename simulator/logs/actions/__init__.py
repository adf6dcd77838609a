"""The actions of a log's rows as columns: flat arrays and codes, in place of an object per row."""
