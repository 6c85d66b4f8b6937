"""Floor 3, the noise process: it sees a network only as a function denoise(x, t) and knows nothing of neurons."""
