/* rope.c - angles and rotation.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/rope.h"

#include <math.h>

/* The pair (not whole) that turns so many times in the context that the model was trained for. */
static double pair_of(const tr_model_config *c, double turns)
{
    const double pi = 3.14159265358979323846;

    return (double)c->n_rot * log((double)c->yarn_context / (turns * 2.0 * pi)) /
           (2.0 * log((double)c->rope_base));
}

/* What remains of pair i's frequency: all of it where it turns often, 1 / factor where seldom, and
 * in between on a line. */
static double yarn_part(const tr_model_config *c, size_t i)
{
    double low = fmax(0.0, floor(pair_of(c, (double)c->yarn_fast)));
    double high = fmin((double)c->n_rot - 1.0, ceil(pair_of(c, (double)c->yarn_slow)));
    double slow = ((double)i - low) / fmax(0.001, high - low);

    slow = fmin(1.0, fmax(0.0, slow));
    return slow / (double)c->yarn_factor + (1.0 - slow);
}

void tr_rope_frequencies(const tr_model_config *c, const float *factors, double *inverse)
{
    for (size_t i = 0; i < c->n_rot / 2; i++) {
        inverse[i] = pow((double)c->rope_base, -2.0 * (double)i / (double)c->n_rot);
        inverse[i] /= (double)c->rope_linear;
        if (factors)
            inverse[i] /= (double)factors[i];
        if (c->yarn_factor > 1.0f)
            inverse[i] *= yarn_part(c, i);
    }
}

void tr_rope_angles(size_t position, size_t n, const double *inverse, double magnitude,
                    float *cosine, float *sine)
{
    for (size_t i = 0; i < n / 2; i++) {
        double angle = (double)position * inverse[i];
        cosine[i] = (float)(magnitude * cos(angle));
        sine[i] = (float)(magnitude * sin(angle));
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
