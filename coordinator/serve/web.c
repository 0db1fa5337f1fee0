/* web.c - a table of the files in web/; web_files.c is made by cmake/embed.cmake.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/serve/web.h"

#include <string.h>

extern const uint8_t tr_web_index_html[], tr_web_page_css[], tr_web_page_js[];
extern const size_t tr_web_index_html_size, tr_web_page_css_size, tr_web_page_js_size;

static const struct {
    const char *path, *type;
    const uint8_t *data;
    const size_t *size;
} files[] = {
    { "/", "text/html; charset=utf-8", tr_web_index_html, &tr_web_index_html_size },
    { "/page.css", "text/css; charset=utf-8", tr_web_page_css, &tr_web_page_css_size },
    { "/page.js", "text/javascript; charset=utf-8", tr_web_page_js, &tr_web_page_js_size },
};

bool tr_web_find(const char *path, tr_web_file *out)
{
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (strcmp(path, files[i].path) == 0) {
            *out = (tr_web_file){ files[i].type, files[i].data, *files[i].size };
            return true;
        }
    }
    return false;
}
