/* test_launch_line.c - the mpirun line is the one that was measured for each version of Open MPI,
 * and what is printed can be pasted back.
 *
 * Method: whole lines for 4.1 and 5.0 with the version given; a property over random words:
 * the shell reads the quoted line back as the same words.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "coordinator/cluster/launch_line.h"

#include <unistd.h>

static const tr_launch_facts here = {
    .open_mpi = 4,
    .mpirun = "mpirun",
    .program = "/opt/troupe",
    .worker = "/opt/troupe-worker",
    .hostname = "head",
    .command = "run",
};

enum { MAX_ARGS = 24 };

static char *compose(const char *const *words, const tr_cluster_config *c, tr_launch_facts facts,
                     tr_launch_line *line)
{
    char *argv[MAX_ARGS + 1] = { 0 }, *text = NULL;
    tr_run_options o;
    bool done;
    int argc = 0;

    for (; words[argc]; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc];
    assert_int_equal(tr_run_options_parse(argc, argv, &o, &done), TR_OK);
    assert_int_equal(tr_launch_line_compose(&o, c, argc, argv, &facts, line), TR_OK);
    assert_null(line->word[line->n]);
    assert_int_equal(tr_launch_line_quote(line, &text), TR_OK);
    return text;
}

static void expect(const char *const *words, const tr_cluster_config *c, tr_launch_facts facts,
                   const char *expected)
{
    tr_launch_line line;
    char *text = compose(words, c, facts, &line);

    assert_string_equal(text, expected);
    free(text);
    tr_launch_line_fini(&line);
}

#define OPTIONS_4                                                                                  \
    "--enable-recovery --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 --mca btl "      \
    "self,vader,tcp "
#define OPTIONS_5                                                                                  \
    "--with-ft ulfm --map-by :OVERSUBSCRIBE --bind-to none --runtime-options "                     \
    "error-nonzero-status=0 --prtemca prte_allowed_exit_without_sync 1 --mca "                     \
    "mpi_yield_when_idle 1 --mca btl self,sm,tcp "

static void workers_of_this_machine_get_the_measured_line(void **state)
{
    const char *words[] = { "run", "-m", "m.gguf", "-w", "3", "-p", "ROMEO:", NULL };
    tr_launch_facts facts = here;

    (void)state;
    expect(words, NULL, facts,
           "mpirun " OPTIONS_4 "--mca btl_tcp_if_include lo --mca oob_tcp_if_include lo "
           "--host localhost:1 -n 1 /opt/troupe run --model=m.gguf --prompt=ROMEO: "
           ": --host localhost:3 -n 3 /opt/troupe-worker");
    facts.open_mpi = 5;
    facts.is_root = true;
    facts.reports = true;
    expect(words, NULL, facts,
           "mpirun --allow-run-as-root " OPTIONS_5
           "--mca btl_tcp_if_include lo --prtemca prte_if_include lo -x TROUPE_RUN_DIR "
           "--host localhost:1 -n 1 /opt/troupe run --model=m.gguf --prompt=ROMEO: "
           ": --host localhost:3 -n 3 /opt/troupe-worker");
}

static void only_what_the_coordinator_needs_is_handed_on(void **state)
{
    const char *words[] = {
        "run",  "-mm", "-w2", "-p:", "-q", "--dry-run", "--worker-threads=4", "--worker-binary=/w",
        "--st", "a'b", NULL
    };
    tr_launch_facts facts = here;

    (void)state;
    facts.shows_progress = true; /* but -q */
    expect(words, NULL, facts,
           "mpirun " OPTIONS_4 "--mca btl_tcp_if_include lo --mca oob_tcp_if_include lo "
           "--host localhost:1 -n 1 /opt/troupe run --model=m --prompt=: --quiet "
           "'--stop=a'\\''b' : --host localhost:2 -n 2 /opt/troupe-worker --threads 4");
    words[4] = "--json";
    facts.reports = true;
    expect(words, NULL, facts,
           "mpirun " OPTIONS_4 "--mca btl_tcp_if_include lo --mca oob_tcp_if_include lo "
           "-x TROUPE_RUN_DIR --host localhost:1 -n 1 /opt/troupe run --progress --model=m "
           "--prompt=: --json '--stop=a'\\''b' : --host localhost:2 -n 2 /opt/troupe-worker "
           "--threads 4");
}

static tr_cluster_config *config(const char *text)
{
    tr_cluster_config *c = NULL;

    assert_int_equal(tr_cluster_config_parse("c", tr_bytes_of(text), &c), TR_OK);
    return c;
}

static const char several[] =
    "model: /m\n"
    "hosts: [{name: n1, slots: 2}, {name: n2, slots: 0}, {name: n3, slots: 9, threads: 8, "
    "model: /d/m}, {name: n4}]\n"
    "coordinator: {host: n2, threads: 6, listen: n2:99, memory_mib: 50}\n"
    "workers: {count: 4, threads: 3, memory_mib: 60, experts: [1, 2, 3, 4]}\n"
    "transport: mpi\n"
    "timeouts: {join_ms: 111, suspect_ms: 44, silence_ms: 222, share_ms: 333}\n"
    "mpirun: {network: 10.0.0.0/24, eager_bytes: 99999, arguments: [--mca, plm_rsh_agent, my "
    "agent]}\n";

static void a_cluster_file_decides_hosts_threads_and_paths(void **state)
{
    const char *words[] = { "run", "--cluster=c", "-p", "x", "--timeout-ms=5", NULL };
    tr_cluster_config *c = config(several);
    tr_launch_facts facts = here;

    (void)state;
    expect(words, c, facts,
           "mpirun " OPTIONS_4
           "--mca btl_tcp_if_include 10.0.0.0/24 --mca oob_tcp_if_include 10.0.0.0/24 "
           "--mca plm_rsh_no_tree_spawn 1 --mca btl_tcp_eager_limit 99999 --mca plm_rsh_agent "
           "'/opt/troupe remote-shell my agent' --host n2:1 -n 1 "
           "/opt/troupe run --model=/m "
           "--threads=6 --listen=n2:99 --transport=mpi --timeout-ms=333 --suspect-ms=44 "
           "--worker-memory-mib=60 --coordinator-memory-mib=50 --silence-ms=222 "
           "--join-timeout-ms=111 --experts=1,2,3,4 --prompt=x --timeout-ms=5 "
           ": --host n1:2 -n 2 /opt/troupe-worker --threads 3 "
           ": --host n3:2 -n 2 /opt/troupe-worker --threads 8 --model /d/m");
    facts.open_mpi = 5;
    expect(words, c, facts,
           "mpirun " OPTIONS_5
           "--prtemca oob_tcp_keepalive_time 0 --mca btl_tcp_if_include 10.0.0.0/24 "
           "--prtemca prte_if_include 10.0.0.0/24 --mca btl_tcp_eager_limit 99999 --mca "
           "plm_rsh_agent 'my agent' "
           "--host n2:1 -n 1 /opt/troupe run --model=/m --threads=6 --listen=n2:99 "
           "--transport=mpi --timeout-ms=333 --suspect-ms=44 --worker-memory-mib=60 "
           "--coordinator-memory-mib=50 --silence-ms=222 --join-timeout-ms=111 "
           "--experts=1,2,3,4 --prompt=x --timeout-ms=5 "
           ": --host n1:2 -n 2 /opt/troupe-worker --threads 3 "
           ": --host n3:2 -n 2 /opt/troupe-worker --threads 8 --model /d/m");
    tr_cluster_config_free(&c);
}

/* mpirun refuses a parameter that is given twice. */
static void a_parameter_in_the_file_replaces_ours(void **state)
{
    const char *words[] = { "run", "--cluster=c", "-mm", "-px", NULL };
    tr_cluster_config *c = config("hosts: [{name: localhost}]\n"
                                  "mpirun: {arguments: [--mca, btl, 'self,tcp']}\n");
    tr_launch_line line;
    char *text = compose(words, c, here, &line);

    (void)state;
    assert_non_null(strstr(text, "--mca btl self,tcp "));
    assert_null(strstr(text, "vader"));
    free(text);
    tr_launch_line_fini(&line);
    tr_cluster_config_free(&c);
}

/* The coordinator's own parser must accept what it is given. */
static void the_handed_on_options_mean_the_same(void **state)
{
    const char *words[] = { "run",  "--cluster=c", "-p", "- x\n",   "--stop", "",       "-m",
                            "mine", "--seed",      "9",  "--top-p", ".25",    "--json", NULL };
    tr_cluster_config *c = config(several);
    tr_launch_line line;
    tr_run_options o;
    bool done;
    int at = 0, end;

    (void)state;
    words[5] = ":";
    free(compose(words, c, here, &line));
    while (strcmp(line.word[at], "run") != 0)
        at++;
    for (end = at; strcmp(line.word[end], ":") != 0; end++)
        continue;
    assert_int_equal(tr_run_options_parse(end - at, line.word + at, &o, &done), TR_OK);
    assert_string_equal(o.model, "mine");
    assert_string_equal(o.prompt, "- x\n");
    assert_string_equal(o.stop[0], ":");
    assert_true(o.has_seed && o.seed == 9 && o.top_p == .25 && o.json);
    assert_int_equal(o.n_experts, 4);
    assert_int_equal(o.threads, 6);
    assert_false(o.has_workers || o.cluster || o.dry_run);
    tr_launch_line_fini(&line);
    tr_cluster_config_free(&c);
}

static void where_the_programs_run_is_known(void **state)
{
    static const struct {
        const char *yaml;
        bool coordinator, worker;
    } table[] = {
        { "hosts: [{name: localhost}]", true, true },
        { "hosts: [{name: HEAD}]", true, true },
        { "hosts: [{name: n1}, {name: head}]", false, true },
        { "hosts: [{name: head, slots: 0}, {name: n1}]", true, false },
        { "hosts: [{name: n1}]", false, false },
    };
    const char *words[] = { "run", "-mm", "-px", "--cluster=c", NULL };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        tr_cluster_config *c = config(table[i].yaml);
        tr_launch_line line;
        char *text = compose(words, c, here, &line);

        assert_int_equal(line.coordinator_is_here, table[i].coordinator);
        assert_int_equal(line.worker_is_here, table[i].worker);
        assert_int_equal(strstr(text, "if_include lo") != NULL, i < 2);
        free(text);
        tr_launch_line_fini(&line);
        tr_cluster_config_free(&c);
    }
}

static void contradictions_with_the_file_are_refused(void **state)
{
    static const struct {
        const char *extra, *says;
    } bad[] = { { "-q", "model" }, { "-mx --experts=1,1", "2 numbers for 1 workers" } };
    tr_cluster_config *c = config("hosts: [{name: localhost}]");
    tr_launch_line line;
    tr_run_options o;
    char reason[256];
    bool done;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char extra[64], run[] = "run", cluster[] = "--cluster=c", prompt[] = "-px";
        char *argv[6] = { run, cluster, prompt, NULL };
        int argc = 3;

        snprintf(extra, sizeof extra, "%s", bad[i].extra);
        char *rest = NULL;
        for (char *word = strtok_r(extra, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
            argv[argc++] = word;
        assert_int_equal(tr_run_options_parse(argc, argv, &o, &done), TR_OK);
        tr_fail_capture_begin(reason, sizeof reason);
        assert_int_equal(tr_launch_line_compose(&o, c, argc, argv, &here, &line), TR_E_USAGE);
        tr_fail_capture_end();
        assert_non_null(strstr(reason, bad[i].says));
    }
    tr_cluster_config_free(&c);
}

/* bash prints its arguments, each ended by a zero byte. */
static void read_back(const char *quoted, char *out, size_t size, size_t *n)
{
    char path[] = "/tmp/test_launch_line.XXXXXX", command[128];
    int fd = mkstemp(path);
    FILE *script = fdopen(fd, "w");

    assert_non_null(script);
    fprintf(script, "printf '%%s\\0' %s\n", quoted);
    assert_int_equal(fclose(script), 0);
    snprintf(command, sizeof command, "bash %s", path);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    *n = fread(out, 1, size, pipe);
    assert_int_equal(pclose(pipe), 0);
    unlink(path);
}

static void a_shell_reads_the_quoted_line_back_as_the_same_words(void **state)
{
    enum { WORDS = 60, SIZE = 12 };
    static const char nasty[] = "'\"\\$`!*?~ \n\t\r\033\001\177(){}[]<>|&;#%=aZ9\303\251-0";
    char words[WORDS][SIZE + 1], *word[WORDS + 1], expected[WORDS * (SIZE + 1)];
    char out[sizeof expected + 1], *text = NULL;
    tr_launch_line line = { word, WORDS, WORDS, false, false };
    uint64_t seed = tr_test_seed();
    size_t at = 0, n;

    (void)state;
    for (size_t i = 0; i < WORDS; i++) {
        size_t size = (seed >> 33) % SIZE;
        for (size_t j = 0; j < size; j++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            words[i][j] = nasty[(seed >> 33) % (sizeof nasty - 1)];
        }
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        words[i][size] = '\0';
        word[i] = words[i];
        memcpy(expected + at, words[i], size + 1);
        at += size + 1;
    }
    word[WORDS] = NULL;
    assert_int_equal(tr_launch_line_quote(&line, &text), TR_OK);
    for (const char *c = text; *c; c++)
        assert_false((unsigned char)*c < ' ' || *c == 0x7f);
    read_back(text, out, sizeof out, &n);
    assert_int_equal(n, at);
    assert_memory_equal(out, expected, at);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workers_of_this_machine_get_the_measured_line),
        cmocka_unit_test(only_what_the_coordinator_needs_is_handed_on),
        cmocka_unit_test(a_cluster_file_decides_hosts_threads_and_paths),
        cmocka_unit_test(a_parameter_in_the_file_replaces_ours),
        cmocka_unit_test(the_handed_on_options_mean_the_same),
        cmocka_unit_test(where_the_programs_run_is_known),
        cmocka_unit_test(contradictions_with_the_file_are_refused),
        cmocka_unit_test(a_shell_reads_the_quoted_line_back_as_the_same_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
