"""`segkit serve`: exported models behind HTTP. Needs the extra serve."""
