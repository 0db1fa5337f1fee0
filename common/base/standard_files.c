/* standard_files.c - see standard_files.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/standard_files.h"

#include <fcntl.h>
#include <unistd.h>

void tr_standard_files_open(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            (void)!open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}
