"""Where a face is in a photo, and the way between the photo's pixels and the face frame's."""
