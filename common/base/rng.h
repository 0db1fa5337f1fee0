/* rng.h - random numbers that are a function of a key and a counter.
 *
 * USE     uint64_t r = tr_rng_u64(seed, sequence, position);     the same for ever
 *         double u = tr_rng_unit(r);                             0 <= u < 1
 *
 * No state: what is drawn for one position does not depend on what else was drawn.  The
 * mixing function is the finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable
 * pseudorandom number generators", OOPSLA 2014), applied to the key word by word.
 * Not for secrets.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_BASE_RNG_H
#define TR_BASE_RNG_H

#include <stdint.h>

static inline uint64_t tr_rng_mix(uint64_t z)
{
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline uint64_t tr_rng_u64(uint64_t seed, uint64_t stream, uint64_t counter)
{
    return tr_rng_mix(tr_rng_mix(tr_rng_mix(seed) ^ stream) ^ counter);
}

static inline double tr_rng_unit(uint64_t r)
{
    return (double)(r >> 11) * 0x1.0p-53;
}

#endif
