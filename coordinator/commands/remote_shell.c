/* remote_shell.c - run a program, and say less of how it ended.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/remote_shell.h"

#include <errno.h>
#include <limits.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* As the launcher was told by the coordinator. */
static bool job_is_up(void)
{
    const char *dir = getenv("TROUPE_RUN_DIR");
    char path[PATH_MAX];

    return dir && snprintf(path, sizeof path, "%s/up", dir) < (int)sizeof path &&
           access(path, F_OK) == 0;
}

tr_status tr_command_remote_shell(int argc, char **argv)
{
    int status = 0;
    pid_t pid;

    if (argc < 2)
        return tr_fail(TR_E_USAGE, "remote-shell: which program? (mpirun is who calls this)");
    /* Whatever it leaves below the launcher, the launcher ends. */
    int error = posix_spawnp(&pid, argv[1], NULL, NULL, argv + 1, environ);
    if (error != 0)
        return tr_fail(TR_E_CONFIG, "remote-shell: %.256s can't be run: %s", argv[1],
                       strerror(error));
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return tr_fail(TR_E_SYSTEM, "remote-shell: %s", strerror(errno));
    if (status == 0 || job_is_up())
        return TR_OK;
    return tr_fail(TR_E_PEER_LOST, "remote shell %.256s ended before all processes were up",
                   argv[1]);
}
