/* softmax.h - exponential and logarithm from basic operations only.
 *
 * Math libraries differ in the last bit; additions, multiplications and divisions of IEEE
 * doubles don't.  So probabilities made with these are the same bits everywhere (the build
 * forbids contraction to fused operations).  Relative error below 1e-15.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_TEXT_SOFTMAX_H
#define TR_COORDINATOR_TEXT_SOFTMAX_H

/* e to the x for x <= 0; 0 below -700 and for minus infinity. */
double tr_exp(double x);

/* The natural logarithm of a normal, positive, finite x. */
double tr_ln(double x);

#endif
