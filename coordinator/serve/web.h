/* web.h - the page's files, which the build puts into the program.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_SERVE_WEB_H
#define TR_COORDINATOR_SERVE_WEB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *type;
    const uint8_t *data;
    size_t size;
} tr_web_file;

/* The file at a URL's path ("/" is index.html); false if there is none. */
bool tr_web_find(const char *path, tr_web_file *out);

#endif
