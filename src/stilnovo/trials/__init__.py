"""Parts of a training step and of writing, tried on a device."""
