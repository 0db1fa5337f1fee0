/* test_invite_file.c - an invitation in a file is whole, private, and believed only if it is both.
 *
 * Method: the coordinator's writer and the worker's reader, against each other and against files
 * made by hand.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "coordinator/cluster/invite_file.h"
#include "proto/frame.h"
#include "worker/join.h"

#include <stdalign.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];
static char path[128];
static alignas(64) uint8_t frame[4096];

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "invites-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/worker-7.invite", dir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir); /* nothing else is in it */
}

/* The frame of an invitation that has a way for rows, or has none. */
static tr_bytes invitation(bool has_data)
{
    tr_frame_header h = { .kind = TR_FRAME_INVITE, .job = 5 };
    uint8_t text[4096];
    size_t size;
    tr_invite i = { .protocol = TR_PROTOCOL,
                    .program = "1.0",
                    .job = 5,
                    .worker = 7,
                    .endpoint = "tcp://127.0.0.1:1",
                    .model = "m",
                    .heartbeat_ms = 10,
                    .silence_ms = 100 };

    if (has_data)
        snprintf(i.data.endpoint, sizeof i.data.endpoint, "not an address");
    assert_int_equal(tr_wire_pack_invite(&i, text, sizeof text, &size), TR_OK);
    assert_true(tr_frame_text_size(size) <= sizeof frame);
    tr_frame_begin(frame, &h, size);
    memcpy(tr_frame_text(frame), text, size);
    tr_frame_seal(frame);
    return (tr_bytes){ frame, tr_frame_text_size(size) };
}

/* The worker says why it does not take the file. */
static void refused(const char *file, tr_status status, const char *why)
{
    char reason[512];
    tr_join *j = NULL;

    tr_fail_capture_begin(reason, sizeof reason);
    tr_status st = tr_join_open_file(file, "1.0", NULL, 1, &j);
    tr_fail_capture_end();
    assert_null(j);
    assert_int_equal(st, status);
    if (!strstr(reason, why))
        fail_msg("no \"%s\" in: %s", why, reason);
}

static void a_file_is_whole_private_and_replaces_an_older_one(void **state)
{
    tr_bytes bytes = invitation(true);
    uint8_t got[4096];
    struct stat s;

    (void)state;
    assert_int_equal(tr_invite_file_write(dir, 7, tr_bytes_of("an older one")), TR_OK);
    assert_int_equal(tr_invite_file_write(dir, 7, bytes), TR_OK);
    assert_int_equal(stat(path, &s), 0);
    assert_int_equal(s.st_mode & 0777, 0600);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    assert_int_equal(fread(got, 1, sizeof got, f), bytes.size);
    fclose(f);
    assert_memory_equal(got, bytes.data, bytes.size);
    tr_invite_file_remove(dir, 7);
    assert_int_equal(access(path, F_OK), -1);
    tr_invite_file_remove(dir, 7); /* once more is no more */
}

static void where_nothing_can_be_written_that_is_said(void **state)
{
    char reason[512];

    (void)state;
    tr_fail_capture_begin(reason, sizeof reason);
    assert_int_equal(tr_invite_file_write("no/such/place", 7, tr_bytes_of("x")), TR_E_IO);
    tr_fail_capture_end();
    assert_non_null(strstr(reason, "no/such/place"));
}

static void a_file_that_others_can_read_is_refused(void **state)
{
    (void)state;
    assert_int_equal(tr_invite_file_write(dir, 7, invitation(true)), TR_OK);
    assert_int_equal(chmod(path, 0640), 0);
    refused(path, TR_E_CONFIG, "others can read it");
}

static void a_file_that_is_no_invitation_is_refused(void **state)
{
    tr_bytes bytes = invitation(true);

    (void)state;
    refused(path, TR_E_IO, "worker-7.invite");
    refused(dir, TR_E_CONFIG, "is no file");
    assert_int_equal(tr_invite_file_write(dir, 7, (tr_bytes){ NULL, 0 }), TR_OK);
    refused(path, TR_E_CONFIG, "worker-7.invite: frame");
    assert_int_equal(tr_invite_file_write(dir, 7, (tr_bytes){ bytes.data, bytes.size - 1 }), TR_OK);
    refused(path, TR_E_CONFIG, "worker-7.invite: frame");
    frame[bytes.size / 2] ^= 1;
    assert_int_equal(tr_invite_file_write(dir, 7, bytes), TR_OK);
    refused(path, TR_E_CONFIG, "checksum");
    assert_int_equal(tr_invite_file_write(dir, 7, invitation(false)), TR_OK);
    refused(path, TR_E_CONFIG, "where rows come from");
}

static void what_an_invitation_says_is_not_believed_either(void **state)
{
    (void)state;
    assert_int_equal(tr_invite_file_write(dir, 7, invitation(true)), TR_OK);
    refused(path, TR_E_SYSTEM, "data plane: not an address is no address to connect to");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_file_is_whole_private_and_replaces_an_older_one, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(where_nothing_can_be_written_that_is_said, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_file_that_others_can_read_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_that_is_no_invitation_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_an_invitation_says_is_not_believed_either, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
