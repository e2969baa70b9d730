"""De-identification: what may leave a source file, and what takes the place of the rest."""
