/* rope.c - angles and rotation.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/rope.h"

#include <math.h>

void tr_rope_frequencies(double base, size_t n, const float *factors, double *inverse)
{
    for (size_t i = 0; i < n / 2; i++)
        inverse[i] = pow(base, -2.0 * (double)i / (double)n) / (factors ? (double)factors[i] : 1.0);
}

void tr_rope_angles(size_t position, size_t n, const double *inverse, float *cosine, float *sine)
{
    for (size_t i = 0; i < n / 2; i++) {
        double angle = (double)position * inverse[i];
        cosine[i] = (float)cos(angle);
        sine[i] = (float)sin(angle);
    }
}

void tr_rope_apply(tr_rope_kind kind, const float *cosine, const float *sine, size_t n, float *x)
{
    size_t step = kind == TR_ROPE_NEOX ? 1 : 2;
    size_t apart = kind == TR_ROPE_NEOX ? n / 2 : 1;

    for (size_t i = 0; i < n / 2; i++) {
        float *a = x + i * step;
        float *b = a + apart;
        float a0 = *a;
        float b0 = *b;
        *a = a0 * cosine[i] - b0 * sine[i];
        *b = a0 * sine[i] + b0 * cosine[i];
    }
}
