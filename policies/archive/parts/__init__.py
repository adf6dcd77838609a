"""A record and its parts: taken apart for columns, and put together from them."""
