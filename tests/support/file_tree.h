/* file_tree.h - small files in folders of their own, for tests.
 *
 * USE     char root[] = "/tmp/test_x.XXXXXX";
 *         assert_non_null(mkdtemp(root));
 *         file_tree_put(root, "a/b/c", "text");     folders as needed
 *         file_tree_remove(root);
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TESTS_SUPPORT_FILE_TREE_H
#define TR_TESTS_SUPPORT_FILE_TREE_H

void file_tree_put(const char *root, const char *path, const char *text);
void file_tree_remove(const char *root);

#endif
