"""What there is to offer: the catalogue, each of its versions, and the changes in between."""
