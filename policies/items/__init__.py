"""Items that there are to offer: the catalogue, each of its versions, the changes in between."""
