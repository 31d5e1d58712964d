"""What a machine is told at its first boot, and the media that carry it."""
