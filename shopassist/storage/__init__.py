"""Where state is kept: one container of ports for each storage, with the same attributes."""
