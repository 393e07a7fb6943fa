"""What every part rests on: errors, files, locks, processes, resuming."""
