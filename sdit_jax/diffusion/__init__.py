"""The diffusion process: schedules, what a network predicts, losses, guidance, samplers. A network is only denoise(x, t)."""
