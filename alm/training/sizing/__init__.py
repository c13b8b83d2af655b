"""What a run needs and takes on a device, by counting and by measuring."""
