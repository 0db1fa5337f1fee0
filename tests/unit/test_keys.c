/* test_keys.c - keys that were made are the ones that are let in.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "coordinator/serve/keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, 0600), 0);
}

static bool allows(const tr_keys *k, const char *key)
{
    char header[TR_KEY_TEXT + 16];

    snprintf(header, sizeof header, "Bearer %s", key);
    return tr_keys_allow(k, header);
}

/* An editor need not end the last line. */
static void a_new_key_has_a_line_of_its_own(void **state)
{
    static const char *const before[] = { "", "# ours", "# ours\n", "\n" };
    char path[] = "/tmp/troupe-keys-XXXXXX";
    char first[TR_KEY_TEXT], second[TR_KEY_TEXT];
    tr_keys *k = NULL;
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    for (size_t i = 0; i < sizeof before / sizeof before[0]; i++) {
        put(path, before[i]);
        assert_int_equal(tr_keys_make(path, first), TR_OK);
        assert_int_equal(tr_keys_make(path, second), TR_OK);
        assert_int_equal(tr_keys_load(path, &k), TR_OK);
        assert_true(allows(k, first) && allows(k, second));
        second[strlen(second) - 1] ^= 1;
        assert_false(allows(k, second));
        assert_false(tr_keys_allow(k, NULL));
        tr_keys_free(&k);
    }
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(a_new_key_has_a_line_of_its_own) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
