/* layer_norm.c - mean, then variance about it, in double precision and in order.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/layer_norm.h"

#include <math.h>

void tr_layer_norm(const float *x, const float *weight, const float *bias, size_t n, float eps,
                   float *y)
{
    double sum = 0.0;
    double squares = 0.0;

    for (size_t i = 0; i < n; i++)
        sum += (double)x[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += ((double)x[i] - mean) * ((double)x[i] - mean);
    double scale = 1.0 / sqrt(squares / (double)n + (double)eps);
    for (size_t i = 0; i < n; i++)
        y[i] = (float)(((double)x[i] - mean) * scale) * weight[i] + bias[i];
}
