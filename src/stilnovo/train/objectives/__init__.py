"""Training objectives, one file each: how rows are read, packed, trained on, planned for, evaluated and printed."""
