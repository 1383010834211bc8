"""Where attribute vectors come from and where they lie."""
