"""Training objectives, one file each: how rows are read, packed, lost, planned for, evaluated on held-out rows and printed."""
