"""Parts of the container, by what they wire; `containers.py` joins them."""
