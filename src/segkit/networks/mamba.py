"""The Mamba layer: tokens to tokens through a selective state space, in one direction.

    x, z         = W_in tokens                      inner = expand * channels numbers each
    u            = silu(causal depthwise convolution of x)
    delta, B, C  = W_x u                            delta through rank = ceil(channels / 16) numbers
    out          = W_out selective_scan(u, W_dt delta, -exp(A_log), B, C, D, z, b_dt)

Parameter names are those of `mamba_ssm.Mamba`, so that states interchange both ways.

Reference:
    Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces (2023).

Deviations: none in what is computed. The scan is segkit's own (`segkit.ops.selective_scan`), in float32 under autocast
too; the projections follow autocast. There is no state for generating token by token.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from segkit.ops.selective_scan import selective_scan

STEP_RANGE = (1e-3, 0.1)
"""Between these the steps dt lie at the start, uniformly in their logarithm."""
STEP_FLOOR = 1e-4


class Mamba(nn.Module):
    """One Mamba layer.

    Args:
        d_model: Channels of a token.
        d_state: Numbers of state of each inner channel, N.
        d_conv: Tokens that the causal convolution sees.
        expand: Inner channels for each channel.
    """

    def __init__(self, d_model: int, *, d_state: int = 16, d_conv: int = 4, expand: int = 2) -> None:
        super().__init__()
        self.d_state, self.dt_rank = d_state, math.ceil(d_model / 16)
        inner = expand * d_model
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner, padding=d_conv - 1)
        self.x_proj = nn.Linear(inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, d_state + 1)).repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, d_model, bias=False)
        self._initialise_steps()

    @torch.no_grad()
    def _initialise_steps(self) -> None:
        """Steps dt = softplus(bias) that are log-uniform in `STEP_RANGE`, varied by weights of about one."""
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        low, high = map(math.log, STEP_RANGE)
        step = torch.exp(low + (high - low) * torch.rand_like(self.dt_proj.bias)).clamp_min(STEP_FLOOR)
        self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))  # softplus backwards

    def forward(self, tokens: Float[Tensor, "B L C"]) -> Float[Tensor, "B L C"]:
        """Token t of the result depends on tokens 0 to t."""
        length = tokens.shape[1]
        x, z = self.in_proj(tokens).transpose(1, 2).chunk(2, dim=1)
        u = F.silu(self.conv1d(x)[..., :length])
        projected = self.x_proj(u.transpose(1, 2))
        delta, b, c = projected.split((self.dt_rank, self.d_state, self.d_state), dim=-1)
        out = selective_scan(
            u,
            F.linear(delta, self.dt_proj.weight).transpose(1, 2),
            -torch.exp(self.A_log),
            b.transpose(1, 2),
            c.transpose(1, 2),
            self.D,
            z,
            self.dt_proj.bias,
        )
        mixed: Tensor = self.out_proj(out.transpose(1, 2))
        return mixed
