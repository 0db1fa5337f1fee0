/* file_tree.c - mkdir on the way down, remove on the way up.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/file_tree.h"

#include "tests/support/tr_test.h"

#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>

void file_tree_put(const char *root, const char *path, const char *text)
{
    char full[512];

    snprintf(full, sizeof full, "%s/%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')) != NULL; p++) {
        *p = '\0';
        (void)mkdir(full, 0700);
        *p = '/';
    }
    FILE *f = fopen(full, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int entry_remove(const char *path, const struct stat *sb, int type, struct FTW *at)
{
    (void)sb;
    (void)type;
    (void)at;
    return remove(path);
}

void file_tree_remove(const char *root)
{
    assert_int_equal(nftw(root, entry_remove, 8, FTW_DEPTH | FTW_PHYS), 0);
}
