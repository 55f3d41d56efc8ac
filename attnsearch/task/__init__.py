"""The two-object relation task: scenes, captions, rendering, and scoring an image."""
