"""What several notebooks of the study share."""
