"""The release's network in PyTorch with spikingjelly's neuron, to compare with: what runs anywhere without a CUDA extension.

Written from the equations of PAPER sections 2 to 6, under the release's parameter names, so that `models.release` reads its
state dict. WKV is a loop over tokens, as the release's own kernel is. With `dtype` bfloat16 the blocks run under autocast:
operands and results of products are rounded; WKV, neurons, norms and the residual stream are not. Needs the extra `bench`.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import nn
from torch.nn.functional import layer_norm, pad

from sdit_jax.diffusion.loss import GREY_LEVEL
from sdit_jax.diffusion.schedule import Schedule


def wkv(w_C, u_C, k_BLC, v_BLC):
    """The numerically safe recurrence of PAPER section 4, token by token, in float32."""
    k_BLC, v_BLC = k_BLC.float(), v_BLC.float()
    p = q = torch.zeros_like(k_BLC[:, 0])
    o = torch.full_like(p, -1e38)
    outputs = []
    for k, v in zip(k_BLC.unbind(1), v_BLC.unbind(1), strict=True):
        now = torch.maximum(o, u_C + k)
        past, bonus = torch.exp(o - now), torch.exp(u_C + k - now)
        outputs.append((past * p + bonus * v) / (past * q + bonus))
        now = torch.maximum(o - w_C, k)
        past, fresh = torch.exp(o - w_C - now), torch.exp(k - now)
        p, q, o = past * p + fresh * v, past * q + fresh, now
    return torch.stack(outputs, 1)


def mixed(x, mu):
    shifted = pad(x, (0, 0, 1, -1))
    return mu * x + (1 - mu) * shifted


def per_channel(D):
    return nn.Parameter(torch.zeros(1, 1, D))


class TimeMix(nn.Module):
    def __init__(self, D):
        super().__init__()
        self.time_decay, self.time_first = nn.Parameter(torch.zeros(D)), nn.Parameter(torch.zeros(D))
        self.time_mix_k, self.time_mix_v, self.time_mix_r = per_channel(D), per_channel(D), per_channel(D)
        self.key, self.value, self.receptance, self.output = (nn.Linear(D, D, bias=False) for _ in range(4))

    def forward(self, x):
        k, v = self.key(mixed(x, self.time_mix_k)), self.value(mixed(x, self.time_mix_v))
        r = self.receptance(mixed(x, self.time_mix_r))
        return self.output(torch.sigmoid(r) * wkv(torch.exp(self.time_decay), self.time_first, k, v))


class ChannelMix(nn.Module):
    def __init__(self, D):
        super().__init__()
        self.time_mix_k, self.time_mix_r = per_channel(D), per_channel(D)
        self.key, self.value = nn.Linear(D, 4 * D, bias=False), nn.Linear(4 * D, D, bias=False)
        self.receptance = nn.Linear(D, D, bias=False)

    def forward(self, x):
        k = torch.square(torch.relu(self.key(mixed(x, self.time_mix_k))))
        return torch.sigmoid(self.receptance(mixed(x, self.time_mix_r))) * self.value(k)


class Block(nn.Module):
    def __init__(self, L, D, T, fuses_skip):
        super().__init__()
        self.skip_linear = nn.Linear(2 * D, D) if fuses_skip else None
        self.att, self.ffn, self.T = TimeMix(D), ChannelMix(D), T
        self.lif1, self.lif2 = (neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(), step_mode="m") for _ in range(2))
        self.restruction_token = nn.Parameter(torch.ones(1, L, D))
        self.restruction_token_MLP, self.another_MLP = nn.Linear(D, L), nn.Linear(L, D)

    def fired(self, lif, current):
        return lif(current.float().unsqueeze(0).repeat(self.T, 1, 1, 1)).mean(0)

    def forward(self, x, skip=None):
        if self.skip_linear is not None and skip is not None:
            x = self.skip_linear(torch.cat([x, skip], -1)).float()
        z = torch.cat([x, self.restruction_token.expand_as(x)], 1)
        z = z + self.fired(self.lif1, self.att(layer_norm(z, z.shape[-1:], eps=1e-6)))
        z = z + self.fired(self.lif2, self.ffn(layer_norm(z, z.shape[-1:], eps=1e-6)))
        x, R = z.chunk(2, 1)
        return x * (1 + self.another_MLP(self.restruction_token_MLP(R).transpose(1, 2)))


class Mlp(nn.Module):
    def __init__(self, D):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, D), nn.SiLU(), nn.Linear(D, D))

    def forward(self, t):
        angles = t[:, None].float() * torch.exp(-math.log(10_000) * torch.arange(128) / 128)
        return self.mlp(torch.cat([angles.cos(), angles.sin()], -1))


class Patches(nn.Module):
    def __init__(self, channels, patch, D):
        super().__init__()
        self.proj = nn.Conv2d(channels, D, patch, patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class Labels(nn.Module):
    def __init__(self, classes, D):
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, D)


class Head(nn.Module):
    def __init__(self, D, outputs):
        super().__init__()
        self.linear = nn.Linear(D, outputs)


class SDiT(nn.Module):
    """(images NCHW, timesteps, labels) -> (noise, v): the `sdit_*` presets of `models.sdit`."""

    def __init__(self, *, image_size, channels, patch_size, width, depth, num_classes, spiking_steps):
        super().__init__()
        L, self.patch = (image_size // patch_size) ** 2 + 1, patch_size
        self.x_embedder, self.t_embedder = Patches(channels, patch_size, width), Mlp(width)
        self.y_embedder = Labels(num_classes, width)
        self.pos_embed, self.dtype = nn.Parameter(torch.zeros(1, L, width)), torch.float32
        blocks = lambda n, fuses: nn.ModuleList(Block(L, width, spiking_steps, fuses) for _ in range(n))
        self.in_blocks, self.out_blocks = blocks(depth // 2, False), blocks(depth // 2, True)
        self.mid_block = Block(L, width, spiking_steps, False)
        self.final_layer = Head(width, patch_size**2 * 2 * channels)
        self.conv = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)

    def forward(self, x, t, y):
        functional.reset_net(self)
        condition = self.t_embedder(t) + self.y_embedder.embedding_table(y)
        x = torch.cat([condition[:, None], self.x_embedder(x)], 1) + self.pos_embed
        skips = []
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            for block in self.in_blocks:
                x = block(x)
                skips.append(x)
            x = self.mid_block(x)
            for block in self.out_blocks:
                x = block(x, skips.pop())
        x = self.final_layer.linear(layer_norm(x, x.shape[-1:], eps=1e-6))[:, 1:]
        B, N, _ = x.shape
        n, p = math.isqrt(N), self.patch
        x = x.reshape(B, n, n, p, p, -1).permute(0, 5, 1, 3, 2, 4).reshape(B, -1, n * p, n * p)
        return self.conv(x)


def diffusion_loss(schedule: Schedule, output, x_0, x_t, t, noise):
    """Mean of mse + variational bound over the batch (PAPER section 6)."""
    table = lambda values: torch.tensor(values, dtype=torch.float32)[t][:, None, None, None]
    predicted, v = output.chunk(2, 1)
    mse = torch.square(noise - predicted).mean((1, 2, 3))
    bar = table(schedule.alphas_bar)
    guess = (x_t - torch.sqrt(1 - bar) * predicted.detach()) / torch.sqrt(bar)
    mean_of = lambda clean: table(schedule.posterior_mean_x0) * clean + table(schedule.posterior_mean_xt) * x_t
    true_mean, mean, true_log = mean_of(x_0), mean_of(guess), table(schedule.posterior_log_variance)
    fraction = (v + 1) / 2
    log_variance = fraction * table(np.log(schedule.betas)) + (1 - fraction) * true_log
    ratio = log_variance - true_log
    kl = 0.5 * (ratio - 1 + torch.exp(-ratio) + torch.square(true_mean - mean) * torch.exp(-log_variance))
    cdf = lambda a: 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3)))
    inverse = torch.exp(-log_variance / 2)
    upper, lower = cdf((x_0 - mean + GREY_LEVEL) * inverse), cdf((x_0 - mean - GREY_LEVEL) * inverse)
    log = lambda a: torch.log(a.clamp(min=1e-12))
    nll = -torch.where(x_0 < -0.999, log(upper), torch.where(x_0 > 0.999, log(1 - lower), log(upper - lower)))
    vb = torch.where(t == 0, nll.mean((1, 2, 3)), kl.mean((1, 2, 3))) / math.log(2)
    return (mse + vb).mean()


def build(model_config: Mapping) -> SDiT:
    names = ("image_size", "channels", "patch_size", "width", "depth", "num_classes", "spiking_steps")
    return SDiT(**{name: model_config[name] for name in names})


def make_train_step(model: SDiT, schedule: Schedule, learning_rate: float) -> Callable:
    """step(x_0, noise, t, y) -> loss: forward, backward, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    bars = torch.tensor(schedule.alphas_bar, dtype=torch.float32)

    def step(x_0, noise, t, y):
        bar = bars[t][:, None, None, None]
        x_t = torch.sqrt(bar) * x_0 + torch.sqrt(1 - bar) * noise
        loss = diffusion_loss(schedule, model(x_t, t, y), x_0, x_t, t, noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
