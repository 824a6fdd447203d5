"""Export: an adapter merged into its base and written in the formats that other programs open."""
