"""What travels between an editor and the server. No torch, no numpy: GIMP's own Python loads it."""
