"""What a run learned and where it fails, as one HTML file; and two runs beside each other."""
