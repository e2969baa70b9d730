"""From one source file to candidate samples with encoded pixels: everything that happens before the barrier."""
