/* softmax.c - argument reduction by powers of two, then a Taylor or artanh series.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/text/softmax.h"
#include "base/check.h"

#include <stdint.h>
#include <string.h>

/* ln 2 in two parts: a multiple of the first by an integer below 2^11 is exact. */
static const double ln2_high = 0x1.62e42fee00000p-1;
static const double ln2_low = 0x1.a39ef35793c76p-33;
static const double log2_e = 0x1.71547652b82fep+0;

static double power_of_two(int64_t e)
{
    uint64_t bits = (uint64_t)(e + 1023) << 52;
    double value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

double tr_exp(double x)
{
    /* 1/k!, k = 13..0: the remainder is below 1e-17 for |r| <= ln(2)/2. */
    static const double c[] = {
        1.0 / 6227020800.0,
        1.0 / 479001600.0,
        1.0 / 39916800.0,
        1.0 / 3628800.0,
        1.0 / 362880.0,
        1.0 / 40320.0,
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    };

    TR_CHECK(x <= 0);
    if (x < -700)
        return 0;
    int64_t k = (int64_t)(x * log2_e - 0.5);
    double r = (x - (double)k * ln2_high) - (double)k * ln2_low;
    double sum = c[0];
    for (unsigned i = 1; i < sizeof c / sizeof c[0]; i++)
        sum = sum * r + c[i];
    return sum * power_of_two(k);
}

double tr_ln(double x)
{
    uint64_t bits;

    TR_CHECK(x > 0);
    memcpy(&bits, &x, sizeof bits);
    int64_t e = (int64_t)(bits >> 52) - 1023;
    bits = (bits & 0x000fffffffffffffu) | 0x3ff0000000000000u;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e++;
    }
    /* ln m = 2 artanh(s); s <= 0.1716, and s^24 / 25 is below 1e-18. */
    double s = (m - 1) / (m + 1), s2 = s * s, sum = 0;
    for (int k = 23; k >= 3; k -= 2)
        sum = (sum + 1.0 / k) * s2;
    double log_m = 2 * s + 2 * s * sum;
    return (double)e * ln2_high + ((double)e * ln2_low + log_m);
}
