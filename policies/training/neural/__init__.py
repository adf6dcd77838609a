"""Networks: how any of them is fitted by torch."""
