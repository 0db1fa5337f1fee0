/* tr_test.h - cmocka, and what every test needs beside it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TESTS_SUPPORT_TR_TEST_H
#define TR_TESTS_SUPPORT_TR_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* The seed of a random test: printed, and taken from TR_TEST_SEED if that is set. */
static inline uint64_t tr_test_seed(void)
{
    const char *given = getenv("TR_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);

    print_message("  seed %llu (set TR_TEST_SEED to repeat)\n", (unsigned long long)seed);
    return seed;
}

#endif
