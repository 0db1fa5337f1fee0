# ggufio.py - a GGUF reader and writer for the reference models.  SPDX-License-Identifier: Apache-2.0
"""Minimal GGUF v3 reader/writer and block formats in plain numpy (no gguf-py, no torch)."""
import struct, os, subprocess
import numpy as np

# ---------------------------------------------------------------- type table: id, block elements, block bytes
TYPES = {
    'F32': (0, 1, 4), 'F16': (1, 1, 2), 'Q4_0': (2, 32, 18), 'Q4_1': (3, 32, 20), 'Q5_0': (6, 32, 22),
    'Q5_1': (7, 32, 24), 'Q8_0': (8, 32, 34), 'Q2_K': (10, 256, 84), 'Q3_K': (11, 256, 110),
    'Q4_K': (12, 256, 144), 'Q5_K': (13, 256, 176), 'Q6_K': (14, 256, 210), 'IQ4_NL': (20, 32, 18),
    'IQ4_XS': (23, 256, 136), 'BF16': (30, 1, 2), 'MXFP4': (39, 32, 17),
}
ID2NAME = {v[0]: k for k, v in TYPES.items()}
FTYPE = {'F32': 0, 'F16': 1, 'Q4_0': 2, 'Q4_1': 3, 'Q8_0': 7, 'Q5_0': 8, 'Q5_1': 9, 'Q2_K': 10, 'Q3_K': 12,
         'Q4_K': 14, 'Q5_K': 16, 'Q6_K': 18, 'IQ4_NL': 25, 'IQ4_XS': 30, 'BF16': 32, 'MXFP4': 38}
HERE = os.path.dirname(os.path.abspath(__file__))
QTOOL = os.environ.get('QTOOL', os.path.join(HERE, 'bin', 'qtool_ik'))

def row_bytes(t, n):
    _, be, bb = TYPES[t]
    assert n % be == 0, (t, n)
    return n // be * bb

# ---------------------------------------------------------------- quantise (simple types here, others via qtool)
def _f16(x): return x.astype(np.float16)
def _blk(x, n): return np.ascontiguousarray(x, dtype=np.float32).reshape(-1, n)

def quantize(x, t):
    """x: float32 array (..., row) -> bytes of the rows in type t."""
    x = np.ascontiguousarray(x, dtype=np.float32)
    if t == 'F32': return x.tobytes()
    if t == 'F16': return x.astype(np.float16).tobytes()
    if t == 'BF16':
        u = x.view(np.uint32).astype(np.uint64)
        return ((u + 0x7fff + ((u >> 16) & 1)) >> 16).astype(np.uint16).tobytes()   # round to nearest even
    if t == 'Q8_0':
        b = _blk(x, 32); d = np.abs(b).max(1) / np.float32(127)
        inv = np.where(d > 0, np.float32(1) / np.where(d > 0, d, 1), 0).astype(np.float32)
        v = b * inv[:, None]; q = (np.sign(v) * np.floor(np.abs(v) + np.float32(0.5))).astype(np.int8)
        return np.concatenate([_f16(d)[:, None].view(np.uint8), q.view(np.uint8)], 1).tobytes()
    if t in ('Q4_0', 'Q5_0'):
        lim = 8 if t == 'Q4_0' else 16
        b = _blk(x, 32); i = np.abs(b).argmax(1); m = b[np.arange(len(b)), i]; d = m / np.float32(-lim)
        inv = np.where(d != 0, np.float32(1) / np.where(d != 0, d, 1), 0).astype(np.float32)
        q = np.clip(np.floor(b * inv[:, None] + np.float32(lim + 0.5)), 0, 2 * lim - 1).astype(np.uint8)
        return _pack45(t, _f16(d)[:, None].view(np.uint8), q)
    if t in ('Q4_1', 'Q5_1'):
        lev = 15 if t == 'Q4_1' else 31
        b = _blk(x, 32); mn = b.min(1); d = (b.max(1) - mn) / np.float32(lev)
        inv = np.where(d != 0, np.float32(1) / np.where(d != 0, d, 1), 0).astype(np.float32)
        q = np.clip(np.floor((b - mn[:, None]) * inv[:, None] + np.float32(0.5)), 0, lev).astype(np.uint8)
        return _pack45(t, np.concatenate([_f16(d)[:, None].view(np.uint8), _f16(mn)[:, None].view(np.uint8)], 1), q)
    return subprocess.run([QTOOL, 'q', str(TYPES[t][0]), str(x.shape[-1])], input=x.tobytes(),
                          stdout=subprocess.PIPE, check=True).stdout

def _pack45(t, head, q):
    lo = (q[:, :16] & 15) | ((q[:, 16:] & 15) << 4)
    parts = [head]
    if t.startswith('Q5'):
        bits = ((q >> 4) & 1).astype(np.uint32)
        qh = (bits << np.arange(32, dtype=np.uint32)).sum(1).astype(np.uint32)
        parts.append(qh[:, None].view(np.uint8))
    parts.append(lo.astype(np.uint8))
    return np.concatenate(parts, 1).tobytes()

# ---------------------------------------------------------------- dequantise, all types, float32, own implementation
KV_NL = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
KV_FP4 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)   # twice the e2m1 value

def _h(b): return np.ascontiguousarray(b).view(np.float16).astype(np.float32)
def _nib(qs): return np.concatenate([qs & 15, qs >> 4], -1)
def _fma(a, b, c):      # round(a*b + c) once, as a fused multiply-add does
    return (a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)).astype(np.float32)

def _scales_k4(s):      # 12 bytes -> 8 scales, 8 mins (6 bit each)
    s = s.astype(np.int32)
    sc = np.concatenate([s[:, 0:4] & 63, (s[:, 8:12] & 15) | ((s[:, 0:4] >> 6) << 4)], 1)
    mn = np.concatenate([s[:, 4:8] & 63, (s[:, 8:12] >> 4) | ((s[:, 4:8] >> 6) << 4)], 1)
    return sc.astype(np.float32), mn.astype(np.float32)

def dequantize(raw, t, shape, fma=False):
    """raw bytes -> float32 array of `shape`. fma=True contracts d*q-m (and d*q+m) into one rounding,
    which is what gcc does by default (-ffp-contract=fast) when it compiles ggml for a CPU with FMA."""
    _, be, bb = TYPES[t]
    raw = np.frombuffer(raw, np.uint8)
    if t == 'F32': return raw.view(np.float32).reshape(shape).copy()
    if t == 'F16': return raw.view(np.float16).astype(np.float32).reshape(shape)
    if t == 'BF16': return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    b = raw.reshape(-1, bb); n = len(b)
    mad = _fma if fma else (lambda a, q, c: a * q + c)
    if t == 'Q8_0':
        y = b[:, 2:].view(np.int8).astype(np.float32) * _h(b[:, :2])
    elif t == 'Q4_0':
        y = (_nib(b[:, 2:]).astype(np.float32) - 8) * _h(b[:, :2])
    elif t == 'Q4_1':
        q = _nib(b[:, 4:]).astype(np.float32); y = mad(np.broadcast_to(_h(b[:, :2]), q.shape), q, np.broadcast_to(_h(b[:, 2:4]), q.shape))
    elif t in ('Q5_0', 'Q5_1'):
        o = 2 if t == 'Q5_0' else 4
        qh = np.ascontiguousarray(b[:, o:o + 4]).view(np.uint32)
        hi = ((qh >> np.arange(32, dtype=np.uint32)) & 1).astype(np.uint8) << 4
        q = (_nib(b[:, o + 4:]) | hi).astype(np.float32)
        if t == 'Q5_0': y = (q - 16) * _h(b[:, :2])
        else: y = mad(np.broadcast_to(_h(b[:, :2]), q.shape), q, np.broadcast_to(_h(b[:, 2:4]), q.shape))
    elif t == 'IQ4_NL':
        y = _h(b[:, :2]) * KV_NL[_nib(b[:, 2:])]
    elif t == 'MXFP4':
        e = b[:, :1].astype(np.int32); d = np.ldexp(np.float32(1), e - 128).astype(np.float32)   # half of 2^(e-127)
        y = d * KV_FP4[_nib(b[:, 1:])]
    elif t == 'IQ4_XS':
        d = _h(b[:, :2]); shi = np.ascontiguousarray(b[:, 2:4]).view(np.uint16).astype(np.int32)
        slo = b[:, 4:8].astype(np.int32); ib = np.arange(8)
        ls = ((slo[:, ib // 2] >> (4 * (ib % 2))) & 15) | (((shi >> (2 * ib)) & 3) << 4)
        dl = d * (ls - 32).astype(np.float32)
        y = (dl[:, :, None] * KV_NL[_nib(b[:, 8:].reshape(n, 8, 16))])
    elif t == 'Q2_K':
        sc = b[:, :16]; qs = b[:, 16:80].reshape(n, 2, 1, 32); d = _h(b[:, 80:82]); dm = _h(b[:, 82:84])
        q = ((qs >> np.array([0, 2, 4, 6], np.uint8)[None, None, :, None]) & 3).reshape(n, 16, 16).astype(np.float32)
        dl = (d * (sc & 15).astype(np.float32))[:, :, None]; ml = (dm * (sc >> 4).astype(np.float32))[:, :, None]
        y = mad(np.broadcast_to(dl, q.shape), q, np.broadcast_to(-ml, q.shape))
    elif t == 'Q3_K':
        hm = b[:, :32]; qs = b[:, 32:96].reshape(n, 2, 1, 32); s = b[:, 96:108].astype(np.int32); d = _h(b[:, 108:110])
        low = ((qs >> np.array([0, 2, 4, 6], np.uint8)[None, None, :, None]) & 3).astype(np.int32)   # n,2,4,32
        hb = ((hm[:, None, :] >> np.arange(8, dtype=np.uint8)[None, :, None]) & 1).reshape(n, 2, 4, 32).astype(np.int32)
        q = (low - np.where(hb > 0, 0, 4)).reshape(n, 16, 16).astype(np.float32)
        lo = np.concatenate([s[:, 0:8] & 15, s[:, 0:8] >> 4], 1)                                      # 16 low nibbles
        hi = np.concatenate([(s[:, 8:12] >> k) & 3 for k in (0, 2, 4, 6)], 1)                         # 16 high pairs
        dl = d * ((lo | (hi << 4)) - 32).astype(np.float32)
        y = dl[:, :, None] * q
    elif t in ('Q4_K', 'Q5_K'):
        d = _h(b[:, 0:2]); dm = _h(b[:, 2:4]); sc, mn = _scales_k4(b[:, 4:16])
        qs = b[:, -128:].reshape(n, 4, 1, 32)
        q = np.concatenate([qs & 15, qs >> 4], 2).reshape(n, 8, 32)
        if t == 'Q5_K':
            qh = b[:, 16:48]
            q = q | (((qh[:, None, :] >> np.arange(8, dtype=np.uint8)[None, :, None]) & 1) << 4)
        q = q.astype(np.float32); dl = (d * sc)[:, :, None]; ml = (dm * mn)[:, :, None]
        y = mad(np.broadcast_to(dl, q.shape), q, np.broadcast_to(-ml, q.shape))
    elif t == 'Q6_K':
        ql = b[:, :128].reshape(n, 2, 2, 32); qh = b[:, 128:192].reshape(n, 2, 1, 32)
        sc = b[:, 192:208].view(np.int8).astype(np.float32); d = _h(b[:, 208:210])
        lo = np.concatenate([ql & 15, ql >> 4], 2)                                                    # n,2,4,32
        hi = (qh >> np.array([0, 2, 4, 6], np.uint8)[None, None, :, None]) & 3
        q = ((lo | (hi << 4)).astype(np.int32) - 32).reshape(n, 16, 16).astype(np.float32)
        y = (d * sc)[:, :, None] * q
    else:
        raise ValueError(t)
    return y.astype(np.float32).reshape(shape)

# ---------------------------------------------------------------- writer
def _s(x): b = x.encode() if isinstance(x, str) else x; return struct.pack('<Q', len(b)) + b
def _val(v):
    """python/numpy value -> (gguf type id, bytes)"""
    if isinstance(v, bool): return 7, struct.pack('<B', v)
    if isinstance(v, str): return 8, _s(v)
    if isinstance(v, float) or isinstance(v, np.float32): return 6, struct.pack('<f', v)
    if isinstance(v, int): return 4, struct.pack('<I', v)
    if isinstance(v, list):
        if isinstance(v[0], (str, bytes)): return 9, struct.pack('<IQ', 8, len(v)) + b''.join(_s(x) for x in v)
        if isinstance(v[0], float): return 9, struct.pack('<IQ', 6, len(v)) + struct.pack('<%df' % len(v), *v)
        return 9, struct.pack('<IQ', 5, len(v)) + struct.pack('<%di' % len(v), *v)
    raise TypeError(type(v))

def write_gguf(path, kv, tensors, align=32):
    """kv: dict; tensors: list of (name, numpy shape (slowest first), type name, bytes)"""
    out = bytearray(struct.pack('<IIQQ', 0x46554747, 3, len(tensors), len(kv)))
    for k, v in kv.items():
        t, b = _val(v); out += _s(k) + struct.pack('<I', t) + b
    off = 0; offs = []
    for name, shape, t, raw in tensors:
        ne = list(shape)[::-1]
        assert len(raw) == row_bytes(t, ne[0]) * int(np.prod(ne[1:], dtype=np.int64)), (name, len(raw))
        out += _s(name) + struct.pack('<I', len(ne)) + struct.pack('<%dQ' % len(ne), *ne) + struct.pack('<IQ', TYPES[t][0], off)
        offs.append(off); off += (len(raw) + align - 1) // align * align
    out += b'\0' * (-len(out) % align)
    with open(path, 'wb') as f:
        f.write(out)
        for name, shape, t, raw in tensors:
            f.write(raw); f.write(b'\0' * (-len(raw) % align))

# ---------------------------------------------------------------- reader
class GGUF:
    def __init__(self, path):
        self.d = open(path, 'rb').read(); self.p = 0
        magic, ver, nt, nkv = self._u('<IIQQ'); assert magic == 0x46554747 and ver in (2, 3)
        self.kv = {}
        for _ in range(nkv):
            k = self._str().decode(); t, = self._u('<I'); self.kv[k] = self._value(t)
        self.t = {}
        for _ in range(nt):
            name = self._str().decode(); nd, = self._u('<I'); ne = self._u('<%dQ' % nd); ty, off = self._u('<IQ')
            self.t[name] = (tuple(int(x) for x in ne[::-1]), ID2NAME.get(ty, ty), off)
        a = self.kv.get('general.alignment', 32); self.base = (self.p + a - 1) // a * a
    def _u(self, f):
        n = struct.calcsize(f); r = struct.unpack_from(f, self.d, self.p); self.p += n; return r
    def _str(self):
        n, = self._u('<Q'); r = self.d[self.p:self.p + n]; self.p += n; return r
    F = {0: '<B', 1: '<b', 2: '<H', 3: '<h', 4: '<I', 5: '<i', 6: '<f', 7: '<B', 10: '<Q', 11: '<q', 12: '<d'}
    def _value(self, t):
        if t == 8:
            b = self._str()
            try: return b.decode()
            except UnicodeDecodeError: return b
        if t == 9:
            et, n = self._u('<IQ'); return [self._value(et) for _ in range(n)]
        v, = self._u(self.F[t]); return bool(v) if t == 7 else v
    def raw(self, name):
        shape, t, off = self.t[name]
        n = row_bytes(t, shape[-1]) * int(np.prod(shape[:-1], dtype=np.int64))
        return self.d[self.base + off: self.base + off + n]
    def tensor(self, name, dtype=np.float64):
        shape, t, off = self.t[name]
        return dequantize(self.raw(name), t, shape).astype(dtype)
    def has(self, name): return name in self.t
