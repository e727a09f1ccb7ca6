"""Import of catalogue files: readers of formats give records, `columns` and `rows` make products of them."""
