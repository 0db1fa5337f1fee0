"""Qwen3-MoE in PyTorch, small and explicit.
# SPDX-License-Identifier: Apache-2.0

Pre-norm RMSNorm, grouped-query attention with per-head RMSNorm on q and k, RoPE in
the NeoX (rotate-half) layout, softmax router over all experts followed by top-k with
renormalised weights, SwiGLU experts, final RMSNorm, output tied to the embedding.

`compute` selects the precision of the matrix products: torch.bfloat16 for training on
CPUs with AVX512-BF16, torch.float32 for evaluation.  Norms, softmax of the router, the
residual stream and the loss are float32 in both.
"""
import math
from dataclasses import asdict, dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class Config:
    vocab_size: int = 4096
    hidden_size: int = 256
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    head_dim: int = 32
    num_experts: int = 16
    num_experts_per_tok: int = 2
    moe_intermediate_size: int = 256
    max_position_embeddings: int = 512
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6

    def hf(self):
        """The same, as a Hugging Face Qwen3MoeConfig dictionary."""
        return dict(architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe",
                    **asdict(self), intermediate_size=self.moe_intermediate_size,
                    hidden_act="silu", attention_bias=False, norm_topk_prob=True,
                    tie_word_embeddings=True, decoder_sparse_step=1, mlp_only_layers=[],
                    use_sliding_window=False, torch_dtype="float32")


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


class Experts(torch.autograd.Function):
    """y[t] = sum_j w[t,j] * down_e(silu(gate_e(x_t)) * up_e(x_t)),  e = idx[t,j].

    Tokens are grouped by expert, so that each expert is three plain matrix products.
    The backward pass is written out: autograd over per-expert slices would build a
    full-size gradient for every slice.
    """

    PAD = 64      # rows per expert are padded to a multiple: few distinct shapes, so that
                  # oneDNN finds its compiled kernels in its cache

    @staticmethod
    def forward(ctx, x, w, idx, gate_up, down):
        T, D = x.shape
        K, E = idx.shape[1], gate_up.shape[0]
        flat = idx.reshape(-1)
        order = flat.argsort()                             # assignments by expert
        counts = torch.bincount(flat, minlength=E)
        padded = (counts + Experts.PAD - 1) // Experts.PAD * Experts.PAD
        start = padded.cumsum(0) - padded
        shift = start - (counts.cumsum(0) - counts)        # padding before each expert
        pos = torch.arange(T * K) + shift[flat[order]]     # row of each assignment
        rows = int(padded.sum())
        src = torch.zeros(rows, dtype=torch.long)          # padding rows copy row 0 ...
        src[pos] = order
        wrow = w.new_zeros(rows)                            # ... and have weight 0
        wrow[pos] = w.reshape(-1)[order]
        inverse = torch.empty_like(order)
        inverse[order] = pos
        spans = [(e, s, s + n) for e, (s, n) in
                 enumerate(zip(start.tolist(), padded.tolist()))]
        xs = x[src // K]
        gu = xs.new_empty(rows, gate_up.shape[1])
        for e, s, t in spans:
            if t > s:
                torch.mm(xs[s:t], gate_up[e].t(), out=gu[s:t])
        g, u = gu.chunk(2, dim=1)
        a = F.silu(g) * u
        ys = xs.new_empty(rows, D)
        for e, s, t in spans:
            if t > s:
                torch.mm(a[s:t], down[e].t(), out=ys[s:t])
        y = (ys[inverse].view(T, K, D).float() * w.unsqueeze(-1)).sum(1)
        ctx.save_for_backward(xs, gu, a, ys, wrow, src, inverse, gate_up, down)
        ctx.spans, ctx.K = spans, K
        return y

    @staticmethod
    def backward(ctx, gy):
        xs, gu, a, ys, wrow, src, inverse, gate_up, down = ctx.saved_tensors
        (T, D), K, dt = gy.shape, ctx.K, xs.dtype
        grows = gy.to(dt)[src // K]
        gw = (grows * ys).sum(1, dtype=torch.float32)[inverse].view(T, K)
        gys = grows * wrow.to(dt).unsqueeze(1)
        gdown = torch.empty_like(down)
        ga = torch.empty_like(a)
        for e, s, t in ctx.spans:
            if t > s:
                torch.mm(gys[s:t], down[e], out=ga[s:t])
                torch.mm(gys[s:t].t(), a[s:t], out=gdown[e])
            else:
                gdown[e].zero_()
        g, u = gu.chunk(2, dim=1)
        sg = torch.sigmoid(g)
        silu = g * sg
        ggu = torch.empty_like(gu)
        Fh = g.shape[1]
        torch.mul(ga, silu, out=ggu[:, Fh:])
        torch.mul(ga * u, torch.addcmul(sg, silu, 1 - sg), out=ggu[:, :Fh])
        ggate_up = torch.empty_like(gate_up)
        gxs = torch.empty_like(xs)
        for e, s, t in ctx.spans:
            if t > s:
                torch.mm(ggu[s:t], gate_up[e], out=gxs[s:t])
                torch.mm(ggu[s:t].t(), xs[s:t], out=ggate_up[e])
            else:
                ggate_up[e].zero_()
        gx = gxs[inverse].view(T, K, D).sum(1)
        return gx, gw, None, ggate_up, gdown


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        H, KV, hd, D = c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.hidden_size
        P = nn.Parameter
        self.attn_norm = P(torch.ones(D))
        self.qkv = P(torch.empty((H + 2 * KV) * hd, D))           # q, k, v stacked
        self.o = P(torch.empty(D, H * hd))
        self.q_norm = P(torch.ones(hd))
        self.k_norm = P(torch.ones(hd))
        self.ffn_norm = P(torch.ones(D))
        self.router = P(torch.empty(c.num_experts, D))
        self.gate_up = P(torch.empty(c.num_experts, 2 * c.moe_intermediate_size, D))
        self.down = P(torch.empty(c.num_experts, D, c.moe_intermediate_size))
        for p in (self.qkv, self.router, self.gate_up):
            nn.init.normal_(p, std=0.02)
        for p in (self.o, self.down):
            nn.init.normal_(p, std=0.02 / math.sqrt(2 * c.num_hidden_layers))

    def attention(self, x, cos, sin, mask, dt):
        c = self.c
        B, T, D = x.shape
        H, KV, hd = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        h = rms_norm(x, self.attn_norm, c.rms_norm_eps).to(dt)
        qkv = (h.view(B * T, D) @ self.qkv.to(dt).t()).view(B, T, H + 2 * KV, hd)
        qk, v = qkv[:, :, :H + KV].float(), qkv[:, :, H + KV:]
        qk = qk * torch.rsqrt(qk.pow(2).mean(-1, keepdim=True) + c.rms_norm_eps)
        qk = qk * torch.cat([self.q_norm.expand(H, hd) * hd ** -0.5,
                             self.k_norm.expand(KV, hd)])
        a, b = qk.chunk(2, dim=-1)                                # rotate-half RoPE
        qk = (qk * cos + torch.cat([-b, a], -1) * sin).to(dt)
        G = H // KV                                               # q heads per kv head
        q = qk[:, :, :H].reshape(B, T, KV, G, hd).permute(0, 2, 3, 1, 4)
        q = q.reshape(B * KV, G * T, hd)
        k = qk[:, :, H:].permute(0, 2, 3, 1).reshape(B * KV, hd, T)
        v = v.permute(0, 2, 1, 3).reshape(B * KV, T, hd)
        s = torch.bmm(q, k).view(B * KV, G, T, T) + mask
        p = torch.softmax(s, -1).view(B * KV, G * T, T)
        y = torch.bmm(p, v).view(B, KV, G, T, hd).permute(0, 3, 1, 2, 4)
        return (y.reshape(B * T, H * hd) @ self.o.to(dt).t()).float().view(B, T, D)

    def moe(self, x, dt):
        c = self.c
        B, T, D = x.shape
        h = rms_norm(x, self.ffn_norm, c.rms_norm_eps).view(B * T, D)
        logits = h @ self.router.t()                              # float32
        prob = torch.softmax(logits, -1)
        w, idx = prob.topk(c.num_experts_per_tok, dim=-1)
        w = w / w.sum(-1, keepdim=True)
        y = Experts.apply(h.to(dt), w, idx, self.gate_up.to(dt), self.down.to(dt))
        # Switch-style balance loss (1.0 when perfectly even) and router z-loss
        load = torch.bincount(idx.reshape(-1), minlength=c.num_experts).float() / idx.numel()
        balance = c.num_experts * (load * prob.mean(0)).sum()
        z = torch.logsumexp(logits, -1).pow(2).mean()
        return y.view(B, T, D), balance, z, idx.view(B, T, -1)


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed = nn.Parameter(torch.empty(c.vocab_size, c.hidden_size))
        nn.init.normal_(self.embed, std=0.02)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = nn.Parameter(torch.ones(c.hidden_size))
        inv = c.rope_theta ** (-torch.arange(0, c.head_dim, 2).double() / c.head_dim)
        ang = torch.outer(torch.arange(c.max_position_embeddings).double(), inv)
        ang = torch.cat([ang, ang], -1).view(-1, 1, c.head_dim)   # over heads
        self.register_buffer("cos", ang.cos().float(), persistent=False)
        self.register_buffer("sin", ang.sin().float(), persistent=False)

    def forward(self, ids, compute=torch.float32):
        """ids [B,T] -> logits [B,T,V], balance loss, z-loss, chosen experts [L,B,T,k]."""
        B, T = ids.shape
        x = F.embedding(ids, self.embed)
        mask = torch.full((T, T), -1e30).triu(1).to(compute)
        cos, sin = self.cos[:T], self.sin[:T]
        balance = z = 0.0
        chosen = []
        for layer in self.layers:
            x = x + layer.attention(x, cos, sin, mask, compute)
            y, b, zz, idx = layer.moe(x, compute)
            x = x + y
            balance, z = balance + b, z + zz
            chosen.append(idx)
        x = rms_norm(x, self.norm, self.c.rms_norm_eps).to(compute)
        logits = x.view(B * T, -1) @ self.embed.to(compute).t()
        L = len(self.layers)
        return logits.view(B, T, -1), balance / L, z / L, torch.stack(chosen)

    # ---- weights under Hugging Face names --------------------------------
    def hf_state(self):
        c, out = self.c, {}
        nq, nk = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        put = lambda n, t: out.__setitem__(n, t.detach().float().contiguous().numpy())
        put("model.embed_tokens.weight", self.embed)
        put("model.norm.weight", self.norm)
        for i, l in enumerate(self.layers):
            p = f"model.layers.{i}."
            put(p + "input_layernorm.weight", l.attn_norm)
            put(p + "post_attention_layernorm.weight", l.ffn_norm)
            put(p + "self_attn.q_proj.weight", l.qkv[:nq])
            put(p + "self_attn.k_proj.weight", l.qkv[nq:nq + nk])
            put(p + "self_attn.v_proj.weight", l.qkv[nq + nk:])
            put(p + "self_attn.o_proj.weight", l.o)
            put(p + "self_attn.q_norm.weight", l.q_norm)
            put(p + "self_attn.k_norm.weight", l.k_norm)
            put(p + "mlp.gate.weight", l.router)
            Fh = c.moe_intermediate_size
            for e in range(c.num_experts):
                q = p + f"mlp.experts.{e}."
                put(q + "gate_proj.weight", l.gate_up[e, :Fh])
                put(q + "up_proj.weight", l.gate_up[e, Fh:])
                put(q + "down_proj.weight", l.down[e])
        return out

    @torch.no_grad()
    def load_hf_state(self, state):
        get = lambda n: torch.from_numpy(state[n]).float()
        self.embed.copy_(get("model.embed_tokens.weight"))
        self.norm.copy_(get("model.norm.weight"))
        for i, l in enumerate(self.layers):
            p = f"model.layers.{i}."
            l.attn_norm.copy_(get(p + "input_layernorm.weight"))
            l.ffn_norm.copy_(get(p + "post_attention_layernorm.weight"))
            l.qkv.copy_(torch.cat([get(p + f"self_attn.{n}_proj.weight") for n in "qkv"]))
            l.o.copy_(get(p + "self_attn.o_proj.weight"))
            l.q_norm.copy_(get(p + "self_attn.q_norm.weight"))
            l.k_norm.copy_(get(p + "self_attn.k_norm.weight"))
            l.router.copy_(get(p + "mlp.gate.weight"))
            for e in range(self.c.num_experts):
                q = p + f"mlp.experts.{e}."
                l.gate_up[e].copy_(torch.cat([get(q + "gate_proj.weight"),
                                              get(q + "up_proj.weight")]))
                l.down[e].copy_(get(q + "down_proj.weight"))

    def param_counts(self):
        """(total, active per token) with the tied embedding counted once."""
        total = sum(p.numel() for p in self.parameters())
        expert = 3 * self.c.hidden_size * self.c.moe_intermediate_size
        idle = self.c.num_experts - self.c.num_experts_per_tok
        return total, total - self.c.num_hidden_layers * idle * expert
