"""The log: what its entries say, their bytes and order, the join of decisions with rewards."""
