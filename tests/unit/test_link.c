/* test_link.c - only who has a key of this job is heard, as who he is; an end is noticed.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "transport/link.h"

enum { N = 2 };

typedef struct {
    tr_curve_keys server_keys, client_keys[N], stranger_keys;
    tr_link *server, *client[N];
} fixture;

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    uint8_t publics[N][TR_CURVE_KEY];

    assert_non_null(f);
    assert_int_equal(tr_curve_keys_new(&f->server_keys), TR_OK);
    assert_int_equal(tr_curve_keys_new(&f->stranger_keys), TR_OK);
    for (int i = 0; i < N; i++) {
        assert_int_equal(tr_curve_keys_new(&f->client_keys[i]), TR_OK);
        memcpy(publics[i], f->client_keys[i].public_key, TR_CURVE_KEY);
    }
    assert_int_equal(tr_link_serve(NULL, &f->server_keys, (const uint8_t(*)[TR_CURVE_KEY])publics,
                                   N, &f->server),
                     TR_OK);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;

    for (int i = 0; i < N; i++)
        tr_link_close(&f->client[i]);
    tr_link_close(&f->server);
    free(f);
    return 0;
}

static tr_link *connect_with(fixture *f, const tr_curve_keys *keys)
{
    tr_link *l = NULL;

    assert_int_equal(
        tr_link_connect(tr_link_endpoint(f->server), f->server_keys.public_key, keys, &l), TR_OK);
    return l;
}

static void expect(tr_link *l, uint32_t peer, const char *text)
{
    tr_link_event e;

    assert_int_equal(tr_link_poll(l, 5 * TR_SECOND, &e), TR_OK);
    assert_int_equal(e.kind, TR_LINK_MESSAGE);
    assert_int_equal(e.peer, peer);
    assert_true(tr_bytes_equal(e.bytes, tr_bytes_of(text)));
}

/* A client's first words make it known to the server. */
static void greet(fixture *f, int i)
{
    f->client[i] = connect_with(f, &f->client_keys[i]);
    assert_int_equal(tr_link_send(f->client[i], 0, tr_bytes_of("hello")), TR_OK);
    expect(f->server, (uint32_t)i + 1, "hello");
}

static void messages_go_both_ways_under_the_right_number(void **state)
{
    fixture *f = *state;

    greet(f, 1);
    greet(f, 0);
    assert_int_equal(tr_link_send(f->server, 1, tr_bytes_of("to one")), TR_OK);
    assert_int_equal(tr_link_send(f->server, 2, tr_bytes_of("to two")), TR_OK);
    expect(f->client[0], 0, "to one");
    expect(f->client[1], 0, "to two");
    assert_int_equal(tr_link_send(f->client[1], 0, tr_bytes_of("")), TR_OK);
    expect(f->server, 2, "");
}

static void a_stranger_is_not_heard(void **state)
{
    fixture *f = *state;
    tr_link_event e;
    tr_link *stranger = connect_with(f, &f->stranger_keys);

    tr_link_send(stranger, 0, tr_bytes_of("let me in"));
    assert_int_equal(tr_link_poll(f->server, 300 * TR_MS, &e), TR_E_DEADLINE);
    greet(f, 0); /* the others are served as before */
    tr_link_close(&stranger);
}

static void who_knows_another_server_key_is_not_heard(void **state)
{
    fixture *f = *state;
    tr_link_event e;
    tr_link *l = NULL;

    assert_int_equal(tr_link_connect(tr_link_endpoint(f->server), f->stranger_keys.public_key,
                                     &f->client_keys[0], &l),
                     TR_OK);
    tr_link_send(l, 0, tr_bytes_of("hello"));
    assert_int_equal(tr_link_poll(f->server, 300 * TR_MS, &e), TR_E_DEADLINE);
    tr_link_close(&l);
}

static void an_end_is_noticed_on_both_sides(void **state)
{
    fixture *f = *state;
    tr_link_event e;

    greet(f, 0);
    greet(f, 1);
    tr_link_close(&f->client[0]);
    assert_int_equal(tr_link_poll(f->server, 5 * TR_SECOND, &e), TR_OK);
    assert_int_equal(e.kind, TR_LINK_GONE);
    assert_int_equal(e.peer, 1);
    tr_link_close(&f->server);
    assert_int_equal(tr_link_poll(f->client[1], 5 * TR_SECOND, &e), TR_OK);
    assert_int_equal(e.kind, TR_LINK_GONE);
    assert_int_equal(e.peer, 0);
}

/* Whoever had the place before ends after all; its descriptor may be the new one's by then. */
static void the_end_of_a_predecessor_is_no_news(void **state)
{
    fixture *f = *state;
    tr_link_event e;

    greet(f, 0);
    tr_link_admit(f->server, 1, f->stranger_keys.public_key);
    tr_link_close(&f->client[0]);
    tr_sleep(50 * TR_MS); /* until the server's end is closed, but not looked at */
    f->client[0] = connect_with(f, &f->stranger_keys);
    assert_int_equal(tr_link_send(f->client[0], 0, tr_bytes_of("hello")), TR_OK);
    tr_sleep(50 * TR_MS);
    expect(f->server, 1, "hello");
    assert_int_equal(tr_link_poll(f->server, 100 * TR_MS, &e), TR_E_DEADLINE);
    tr_link_close(&f->client[0]);
    assert_int_equal(tr_link_poll(f->server, 5 * TR_SECOND, &e), TR_OK);
    assert_int_equal(e.kind, TR_LINK_GONE);
    assert_int_equal(e.peer, 1);
}

static void last_words_come_before_the_end(void **state)
{
    fixture *f = *state;
    tr_link_event e;

    greet(f, 0);
    assert_int_equal(tr_link_send(f->client[0], 0, tr_bytes_of("bye")), TR_OK);
    tr_link_close(&f->client[0]);
    expect(f->server, 1, "bye");
    assert_int_equal(tr_link_poll(f->server, 5 * TR_SECOND, &e), TR_OK);
    assert_int_equal(e.kind, TR_LINK_GONE);
}

static void who_was_never_heard_can_not_be_told(void **state)
{
    fixture *f = *state;

    assert_int_equal(tr_link_send(f->server, 1, tr_bytes_of("x")), TR_E_PEER_LOST);
    assert_int_equal(tr_link_send(f->server, 0, tr_bytes_of("x")), TR_E_PEER_LOST);
    assert_int_equal(tr_link_send(f->server, N + 1, tr_bytes_of("x")), TR_E_PEER_LOST);
}

static void too_large_a_message_ends_its_connection(void **state)
{
    fixture *f = *state;
    tr_link_event e;
    uint8_t *big = calloc(1, TR_LINK_MAX_MESSAGE + 1);

    assert_non_null(big);
    greet(f, 0);
    greet(f, 1);
    tr_link_send(f->client[0], 0, (tr_bytes){ big, TR_LINK_MAX_MESSAGE + 1 });
    assert_int_equal(tr_link_poll(f->server, 5 * TR_SECOND, &e), TR_OK);
    assert_int_equal(e.kind, TR_LINK_GONE);
    assert_int_equal(e.peer, 1);
    free(big);
}

static void without_an_address_only_this_host_is_served(void **state)
{
    fixture *f = *state;
    tr_link *l = NULL;
    char reason[256];

    assert_true(tr_link_is_loopback(f->server));
    assert_int_equal(strncmp(tr_link_endpoint(f->server), "tcp://127.0.0.1:", 16), 0);
    tr_fail_capture_begin(reason, sizeof reason);
    assert_int_equal(tr_link_serve("203.0.113.1", &f->server_keys, NULL, 0, &l), TR_E_SYSTEM);
    tr_fail_capture_end();
    assert_non_null(strstr(reason, "203.0.113.1"));
}

static void waiting_in_vain_ends_in_time(void **state)
{
    fixture *f = *state;
    tr_link_event e;
    tr_time begin = tr_now();

    assert_int_equal(tr_link_poll(f->server, 0, &e), TR_E_DEADLINE);
    assert_int_equal(tr_link_poll(f->server, 50 * TR_MS, &e), TR_E_DEADLINE);
    assert_true(tr_now() - begin >= 50 * TR_MS);
}

int main(void)
{
#define LINK_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        LINK_TEST(messages_go_both_ways_under_the_right_number),
        LINK_TEST(a_stranger_is_not_heard),
        LINK_TEST(who_knows_another_server_key_is_not_heard),
        LINK_TEST(an_end_is_noticed_on_both_sides),
        LINK_TEST(the_end_of_a_predecessor_is_no_news),
        LINK_TEST(last_words_come_before_the_end),
        LINK_TEST(who_was_never_heard_can_not_be_told),
        LINK_TEST(too_large_a_message_ends_its_connection),
        LINK_TEST(without_an_address_only_this_host_is_served),
        LINK_TEST(waiting_in_vain_ends_in_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
