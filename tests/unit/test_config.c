/* test_config.c - a cluster file loads as it is written, and a wrong one is refused with one line
 * that names the file, the key and what is allowed, and the line where it is known.
 *
 * Method: a table of sound files, a table of wrong ones with words of their error line; the
 * shipped examples; the README of the keys against the schema.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "coordinator/cluster/config.h"

#include <unistd.h>

static tr_status parse(const char *text, tr_cluster_config **c, char *line, size_t size)
{
    tr_fail_capture_begin(line, size);
    tr_status st = tr_cluster_config_parse("c.yaml", tr_bytes_of(text), c);
    tr_fail_capture_end();
    return st;
}

static tr_cluster_config *good(const char *text)
{
    char line[512];
    tr_cluster_config *c = NULL;
    tr_status st = parse(text, &c, line, sizeof line);

    if (st != TR_OK)
        print_message("  %s\n", line);
    assert_int_equal(st, TR_OK);
    return c;
}

static void a_short_file_gets_its_defaults(void **state)
{
    tr_cluster_config *c = good("hosts:\n  - name: localhost\n");

    (void)state;
    assert_int_equal(c->n_hosts, 1);
    assert_string_equal(c->host[0].name, "localhost");
    assert_int_equal(c->host[0].slots, 1);
    assert_int_equal(c->host[0].threads, 0);
    assert_int_equal(c->n_workers, 1);
    assert_int_equal(c->coordinator, 0);
    assert_int_equal(c->transport, TR_CLUSTER_TRANSPORT_AUTO);
    assert_int_equal(c->placement, TR_CLUSTER_PLACE_EVEN);
    assert_int_equal(c->join_ms + c->silence_ms + c->share_ms, 0);
    assert_null(c->model);
    assert_null(c->experts);
    assert_null(c->listen);
    assert_null(c->mpirun);
    assert_null(c->network);
    assert_int_equal(c->n_arguments, 0);
    tr_cluster_config_free(&c);
    assert_null(c);
    tr_cluster_config_free(&c);
}

static void every_key_reaches_its_field(void **state)
{
    tr_cluster_config *c =
        good("model: /m.gguf\n"
             "hosts:\n"
             "  - { name: head, slots: 0 }\n"
             "  - { name: n-1.x, slots: 2, threads: 8, model: /data/m.gguf }\n"
             "  - { name: n_2, slots: 3 }\n"
             "coordinator:\n"
             "  { host: HEAD, threads: 4, listen: '[::1]:900', memory_mib: 9 }\n"
             "workers:\n"
             "  count: 4\n"
             "  threads: 2\n"
             "  experts: [8, 4, 2, 2]\n"
             "  placement: even\n"
             "  binary: /opt/troupe-worker\n"
             "  memory_mib: 7\n"
             "transport: mpi\n"
             "timeouts:\n"
             "  { join_ms: 1000, suspect_ms: 50, silence_ms: 200, share_ms: 30 }\n"
             "mpirun:\n"
             "  path: /opt/mpirun\n"
             "  network: 10.0.0.0/24,eth0\n"
             "  eager_bytes: 262144\n"
             "  arguments: [--mca, plm_rsh_agent, my agent]\n");

    (void)state;
    assert_string_equal(c->model, "/m.gguf");
    assert_int_equal(c->n_hosts, 3);
    assert_int_equal(c->host[0].slots, 0);
    assert_int_equal(c->host[1].threads, 8);
    assert_int_equal(c->host[2].threads, 2);
    assert_string_equal(c->host[1].model, "/data/m.gguf");
    assert_int_equal(c->coordinator, 0);
    assert_int_equal(c->coordinator_threads, 4);
    assert_string_equal(c->listen, "[::1]:900");
    assert_int_equal(c->n_workers, 4);
    assert_int_equal(c->experts[0], 8);
    assert_int_equal(c->experts[3], 2);
    assert_string_equal(c->worker_binary, "/opt/troupe-worker");
    assert_int_equal(c->transport, TR_CLUSTER_TRANSPORT_MPI);
    assert_true(c->join_ms == 1000 && c->silence_ms == 200 && c->share_ms == 30);
    assert_int_equal(c->suspect_ms, 50);
    assert_true(c->coordinator_memory_mib == 9 && c->worker_memory_mib == 7);
    assert_string_equal(c->mpirun, "/opt/mpirun");
    assert_string_equal(c->network, "10.0.0.0/24,eth0");
    assert_int_equal(c->eager_bytes, 262144);
    assert_int_equal(c->n_arguments, 3);
    assert_string_equal(c->argument[2], "my agent");
    tr_cluster_config_free(&c);
}

#define HOSTS "hosts: [{name: a, slots: 2}]\n"

static void what_is_wrong_is_named_with_its_key(void **state)
{
    static const struct {
        const char *text;
        const char *says[3];
    } bad[] = {
        { "", { "c.yaml", "empty" } },
        { "# nothing\n", { "c.yaml", "empty", "hosts" } },
        { "[]", { "c.yaml", "expecting MAPPING" } },
        { "just text", { "c.yaml", "expecting MAPPING" } },
        { "model: x\n", { "c.yaml", "hosts" } },
        { "hosts: []\n", { "c.yaml:1", "hosts" } },
        { "hosts: {}\n", { "c.yaml:1", "hosts" } },
        { "hosts:\n\t- a\n", { "c.yaml:1" } },
        { "hosts: [{name: a}\n", { "c.yaml", "expected" } },
        { HOSTS "nonsense: 1\n", { "c.yaml:2:", "unexpected key: nonsense" } },
        { "hosts:\n  - name: a\n    slots: 1\n    slotz: 3\n", { "c.yaml:4:", "slotz" } },
        { "hosts:\n  - name: a\n    name: b\n", { "c.yaml:2:", "already seen: name" } },
        { HOSTS HOSTS, { "c.yaml:", "already seen: hosts" } },
        { HOSTS "---\n" HOSTS, { "c.yaml", "more than one document" } },
        { "hosts: [{name: &x a}]\nmodel: *x\n", { "c.yaml:2", "alias", "model" } },
        { "hosts: [{slots: 1}]\n", { "c.yaml:1", "missing", "name" } },
        { "hosts: [{name: }]\n", { "hosts[1].name" } },
        { "hosts: [{name: 'a b'}]\n", { "hosts[1].name \"a b\"", "letters" } },
        { "hosts: [{name: -a}]\n", { "hosts[1].name \"-a\"" } },
        { "hosts: [{name: 'a:2'}]\n", { "hosts[1].name \"a:2\"" } },
        { "hosts: [{name: \"a\\nb\"}]\n", { "hosts[1].name" } },
        { "hosts: [{name: a}, {name: A}]\n", { "hosts[2].name \"A\"", "once" } },
        { "hosts: [{name: a, slots: 3x}]\n", { "hosts[1].slots \"3x\"", "0..4096" } },
        { "hosts: [{name: a, slots: -1}]\n", { "hosts[1].slots \"-1\"", "0..4096" } },
        { "hosts: [{name: a, slots: 0x1}]\n", { "hosts[1].slots \"0x1\"" } },
        { "hosts: [{name: a, slots: 1.0}]\n", { "hosts[1].slots \"1.0\"" } },
        { "hosts: [{name: a, slots: }]\n", { "hosts[1].slots \"\"" } },
        { "hosts: [{name: a, slots: [1]}]\n", { "c.yaml:1", "slots" } },
        { "hosts: [{name: a, slots: 4097}]\n", { "hosts[1].slots \"4097\"", "0..4096" } },
        { "hosts: [{name: a, slots: 99999999999999999999999999}]\n", { "hosts[1].slots" } },
        { "hosts: [{name: a, slots: 0}]\n", { "0 slots in all", "1..4096" } },
        { "hosts: [{name: a, slots: 4096}, {name: b}]\n", { "4097 slots in all" } },
        { "hosts: [{name: a, threads: 513}]\n", { "hosts[1].threads", "0..512" } },
        { "hosts: [{name: a, model: ''}]\n", { "hosts[1].model" } },
        { HOSTS "model: -m\n", { "model \"-m\"", "begin with -" } },
        { HOSTS "model: \"a\\eb\"\n", { "model", "control" } },
        { HOSTS "coordinator: {host: b}\n", { "coordinator.host \"b\"", "under hosts" } },
        { HOSTS "coordinator: 3\n", { "c.yaml:2", "expecting MAPPING", "coordinator" } },
        { HOSTS "coordinator: {listen: 'a:b'}\n", { "coordinator.listen \"a:b\"", "PORT" } },
        { HOSTS "coordinator: {listen: '::1'}\n", { "coordinator.listen", "[ADDRESS]" } },
        { HOSTS "workers: {count: 3}\n", { "workers.count \"3\"", "1..2" } },
        { HOSTS "workers: {count: 0}\n", { "workers.count \"0\"", "1..2" } },
        { HOSTS "workers: {experts: [1]}\n", { "1 numbers for 2 workers" } },
        { HOSTS "workers: {experts: [1, 0]}\n", { "workers.experts[2] \"0\"", "1..4096" } },
        { HOSTS "workers: {experts: even}\n", { "c.yaml:2", "experts" } },
        { HOSTS "workers: {placement: odd}\n", { "workers.placement \"odd\"", "even or rotate" } },
        { HOSTS "workers: {placement: rotate, experts: [1, 1]}\n", { "exclude" } },
        { HOSTS "transport: smoke\n", { "transport \"smoke\"", "auto or mpi" } },
        { HOSTS "timeouts: {join_ms: 5}\n", { "timeouts.join_ms \"5\"", "100..86400000" } },
        { HOSTS "timeouts: {share_ms: 0}\n", { "timeouts.share_ms \"0\"" } },
        { HOSTS "mpirun: {path: '--help'}\n", { "mpirun.path" } },
        { HOSTS "mpirun: {network: 'lo; x'}\n", { "mpirun.network \"lo; x\"", "eth0" } },
        { HOSTS "mpirun: {arguments: [a, ':']}\n", { "mpirun.arguments[2] \":\"" } },
        { HOSTS "mpirun: {arguments: ['']}\n", { "mpirun.arguments[1] \"\"" } },
        { HOSTS "mpirun: {arguments: [\"a\\nb\"]}\n", { "mpirun.arguments[1]" } },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        tr_cluster_config *c = NULL;
        char line[512];
        tr_status st = parse(bad[i].text, &c, line, sizeof line);

        print_message("  %s\n", line);
        assert_int_equal(st, TR_E_CONFIG);
        assert_null(c);
        for (size_t j = 0; j < 3 && bad[i].says[j]; j++)
            assert_non_null(strstr(line, bad[i].says[j]));
    }
}

static void what_is_too_large_is_refused(void **state)
{
    size_t size = TR_CLUSTER_MAX_FILE + 1;
    char *text = malloc(size + 1), line[512];
    tr_cluster_config *c = NULL;

    (void)state;
    assert_non_null(text);
    memset(text, ' ', size);
    memcpy(text, HOSTS, sizeof HOSTS - 1);
    text[size] = '\0';
    assert_int_equal(parse(text, &c, line, sizeof line), TR_E_CONFIG);
    assert_non_null(strstr(line, "262144"));
    text[size - 1] = '\0';
    assert_int_equal(parse(text, &c, line, sizeof line), TR_OK);
    tr_cluster_config_free(&c);

    memset(text, '[', size - 1); /* deep nesting must not cost much either */
    assert_int_equal(parse(text, &c, line, sizeof line), TR_E_CONFIG);
    memcpy(text, "hosts: [{name: a, slots: ", 25);
    assert_int_equal(parse(text, &c, line, sizeof line), TR_E_CONFIG);
    free(text);
}

static void a_file_that_cannot_be_read_is_said(void **state)
{
    tr_cluster_config *c = NULL;
    char line[512];

    (void)state;
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_cluster_config_load("/does/not/exist.yaml", &c), TR_E_IO);
    assert_non_null(strstr(line, "/does/not/exist.yaml"));
    assert_int_equal(tr_cluster_config_load("/", &c), TR_E_IO);
    assert_non_null(strstr(line, "read"));
    tr_fail_capture_end();
}

static void the_shipped_examples_load(void **state)
{
    static const char *const names[] = { "local-3.yaml", "two-hosts.yaml" };

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[1024];
        tr_cluster_config *c = NULL;

        snprintf(path, sizeof path, "%s/cluster-configs/%s", TR_SOURCE_DIR, names[i]);
        assert_int_equal(tr_cluster_config_load(path, &c), TR_OK);
        assert_true(c->n_workers >= 2);
        tr_cluster_config_free(&c);
    }
}

/* cluster-configs/README.md has a table with one row a key: | `hosts.name` | ... */
static void every_key_is_documented(void **state)
{
    char text[32768], key[64], row[80];
    size_t n = 0;
    FILE *file = fopen(TR_SOURCE_DIR "/cluster-configs/README.md", "r");

    (void)state;
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    for (; tr_cluster_config_key(n, key, sizeof key); n++) {
        snprintf(row, sizeof row, "\n| `%s` |", key);
        if (!strstr(text, row))
            print_message("  no row for %s\n", key);
        assert_non_null(strstr(text, row));
    }
    assert_true(n > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_short_file_gets_its_defaults),
        cmocka_unit_test(every_key_reaches_its_field),
        cmocka_unit_test(what_is_wrong_is_named_with_its_key),
        cmocka_unit_test(what_is_too_large_is_refused),
        cmocka_unit_test(a_file_that_cannot_be_read_is_said),
        cmocka_unit_test(the_shipped_examples_load),
        cmocka_unit_test(every_key_is_documented),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
