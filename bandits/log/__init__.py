"""The log: what its entries say, their bytes, their order, and the join of decisions with rewards."""
