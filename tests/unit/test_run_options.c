/* test_run_options.c - what a user writes is read exactly, and what is wrong is refused with one
 * line that names the option, the value and what is allowed.
 *
 * Method: tables of command lines; the error line is captured and searched.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "coordinator/commands/run_options.h"

#include <math.h>
#include <unistd.h>

enum { MAX_ARGS = 48 };

#define BASE "-m", "x.gguf", "-p", "hi"

static int count(const char *const *argv)
{
    int n = 0;

    while (argv[n])
        n++;
    return n;
}

static tr_status parse(const char *const *argv, tr_run_options *o, char *line, size_t size)
{
    char *copy[MAX_ARGS + 1];
    int argc = count(argv);
    bool done = false;
    tr_status st;

    assert_true(argc <= MAX_ARGS);
    memcpy(copy, argv, (size_t)(argc + 1) * sizeof *copy);
    tr_fail_capture_begin(line, size);
    st = tr_run_options_parse(argc, copy, o, &done);
    tr_fail_capture_end();
    assert_false(done);
    return st;
}

static void good(const char *const *argv, tr_run_options *o)
{
    char line[512];
    tr_status st = parse(argv, o, line, sizeof line);

    if (st != TR_OK)
        print_message("  %s\n", line);
    assert_int_equal(st, TR_OK);
}

static void defaults_are_what_the_help_promises(void **state)
{
    const char *argv[] = { "run", BASE, NULL };
    tr_run_options o;

    (void)state;
    good(argv, &o);
    assert_string_equal(o.model, "x.gguf");
    assert_string_equal(o.prompt, "hi");
    assert_int_equal(o.tokens, 128);
    assert_int_equal(o.batch, 256);
    assert_int_equal(o.ctx, 0);
    assert_int_equal(o.threads, 0);
    assert_true(o.temp == 0.8 && o.top_p == 0.95 && o.min_p == 0.05 && o.repeat_penalty == 1.0);
    assert_int_equal(o.top_k, 40);
    assert_false(o.has_seed);
    assert_false(o.has_workers);
    assert_int_equal(o.kv, TR_RUN_KV_F16);
    assert_int_equal(o.activations, TR_RUN_ACTIVATIONS_AUTO);
    assert_int_equal(o.transport, TR_RUN_TRANSPORT_AUTO);
    assert_int_equal(o.n_stops, 0);
    assert_int_equal(o.n_experts, 0);
    assert_null(o.isa);
    assert_false(o.json || o.quiet || o.verbose || o.progress || o.dry_run || o.ignore_eos);
}

static void every_option_reaches_its_field(void **state)
{
    const char *argv[] = { "run",
                           "--model=m",
                           "-p",
                           "-",
                           "-n7",
                           "--temp",
                           "0",
                           "--top-k",
                           "3",
                           "--top-p=.5",
                           "--min-p",
                           "1e-3",
                           "--stop",
                           "a",
                           "--stop=b",
                           "--ctx=99",
                           "--threads=2",
                           "--seed",
                           "18446744073709551615",
                           "--json",
                           "--logprobs=5",
                           "-w",
                           "3",
                           "--isa=c",
                           "--batch",
                           "17",
                           "--bos=on",
                           "--ignore-eos",
                           "--kv",
                           "f32",
                           "-q",
                           "--experts",
                           "4,2, 2",
                           "--listen",
                           "[::1]:5000",
                           "--timeout-ms=5",
                           "--progress",
                           "--dry-run",
                           "--worker-binary",
                           "/w",
                           "--worker-threads=4",
                           "--transport=mpi",
                           "--silence-ms=200",
                           "--join-timeout-ms=300",
                           NULL };
    tr_run_options o;

    (void)state;
    good(argv, &o);
    assert_string_equal(o.model, "m");
    assert_true(o.prompt_stdin && !o.prompt);
    assert_int_equal(o.tokens, 7);
    assert_true(o.temp == 0 && o.top_p == .5 && o.min_p == 1e-3);
    assert_int_equal(o.top_k, 3);
    assert_int_equal(o.n_stops, 2);
    assert_string_equal(o.stop[1], "b");
    assert_int_equal(o.ctx, 99);
    assert_int_equal(o.threads, 2);
    assert_true(o.has_seed && o.seed == UINT64_MAX);
    assert_true(o.json && o.ignore_eos && o.quiet && o.progress && o.dry_run);
    assert_int_equal(o.logprobs, 5);
    assert_true(o.has_workers && o.workers == 3);
    assert_string_equal(o.isa, "c");
    assert_int_equal(o.batch, 17);
    assert_int_equal(o.bos, TR_RUN_BOS_ON);
    assert_int_equal(o.kv, TR_RUN_KV_F32);
    assert_int_equal(o.n_experts, 3);
    assert_int_equal(o.experts[0], 4);
    assert_int_equal(o.experts[2], 2);
    assert_string_equal(o.listen, "[::1]:5000");
    assert_string_equal(o.worker_binary, "/w");
    assert_int_equal(o.worker_threads, 4);
    assert_int_equal(o.transport, TR_RUN_TRANSPORT_MPI);
    assert_true(o.timeout_ms == 5 && o.silence_ms == 200 && o.join_timeout_ms == 300);
}

static void every_transport_has_its_name(void **state)
{
    static const struct {
        const char *name;
        uint32_t transport;
    } names[] = {
        { "auto", TR_RUN_TRANSPORT_AUTO },
        { "mpi", TR_RUN_TRANSPORT_MPI },
        { "zmq", TR_RUN_TRANSPORT_ZMQ },
        { "inproc", TR_RUN_TRANSPORT_INPROC },
    };

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *argv[] = { "run", BASE, "--transport", names[i].name, NULL };
        tr_run_options o;
        good(argv, &o);
        assert_int_equal(o.transport, names[i].transport);
    }
}

static void exact_activations_bring_an_exact_cache(void **state)
{
    const char *argv[] = { "run", BASE, "--activations", "f32", NULL };
    tr_run_options o;

    (void)state;
    good(argv, &o);
    assert_int_equal(o.activations, TR_RUN_ACTIVATIONS_F32);
    assert_int_equal(o.kv, TR_RUN_KV_F32);
}

static void the_last_of_a_repeated_option_counts(void **state)
{
    const char *argv[] = { "run", "-m",   "a",  "-p", "-",  "-m", "b",
                           "-p",  "text", "-n", "1",  "-n", "2",  NULL };
    tr_run_options o;

    (void)state;
    good(argv, &o);
    assert_string_equal(o.model, "b");
    assert_string_equal(o.prompt, "text");
    assert_false(o.prompt_stdin);
    assert_int_equal(o.tokens, 2);
}

/* Each wrong line, and what its one message must contain. */
static void what_is_wrong_is_named_with_value_and_range(void **state)
{
    static const struct {
        const char *argv[10];
        const char *says[3];
    } bad[] = {
        { { "-p", "hi" }, { "no model", "-m" } },
        { { "-m", "x" }, { "no prompt", "-p" } },
        { { BASE, "-f", "y" }, { "more than one prompt" } },
        { { BASE, "--ids", "1 2" }, { "more than one prompt" } },
        { { BASE, "extra" }, { "\"extra\"", "-p" } },
        { { BASE, "--", "extra" }, { "\"extra\"" } },
        { { BASE, "--nonsense" }, { "--nonsense", "--help" } },
        { { BASE, "--nonsense=1" }, { "--nonsense", "--help" } },
        { { BASE, "-Z" }, { "-Z", "--help" } },
        { { BASE, "--to" }, { "--to", "ambiguous" } },
        { { BASE, "-n" }, { "--tokens", "missing" } },
        { { BASE, "--temp" }, { "--temp", "missing", "X" } },
        { { BASE, "--json=yes" }, { "--json", "takes no value" } },
        { { BASE, "-n", "x" }, { "--tokens", "\"x\"", "0..16777216" } },
        { { BASE, "-n", "" }, { "--tokens", "\"\"" } },
        { { BASE, "-n", "-1" }, { "--tokens", "\"-1\"" } },
        { { BASE, "-n", "+1" }, { "--tokens", "\"+1\"" } },
        { { BASE, "-n", " 1" }, { "--tokens", "\" 1\"" } },
        { { BASE, "-n", "1x" }, { "--tokens", "\"1x\"" } },
        { { BASE, "-n", "0x10" }, { "--tokens", "\"0x10\"" } },
        { { BASE, "-n", "16777217" }, { "--tokens", "16777217" } },
        { { BASE, "--seed", "18446744073709551616" }, { "--seed", "18446744073709551616" } },
        { { BASE, "--temp", "nan" }, { "--temp", "\"nan\"", "0..100" } },
        { { BASE, "--temp", "inf" }, { "--temp", "\"inf\"" } },
        { { BASE, "--temp", "1e999" }, { "--temp", "1e999" } },
        { { BASE, "--temp", "-0.1" }, { "--temp", "-0.1" } },
        { { BASE, "--temp", "0x1" }, { "--temp", "0x1" } },
        { { BASE, "--temp", "" }, { "--temp" } },
        { { BASE, "--temp", "0.8.1" }, { "--temp", "0.8.1" } },
        { { BASE, "--top-p", "1.01" }, { "--top-p", "1.01", "0..1" } },
        { { BASE, "--min-p", "-1" }, { "--min-p", "-1", "0..1" } },
        { { BASE, "--repeat-penalty", "0" }, { "--repeat-penalty", "\"0\"", "0.01..100" } },
        { { BASE, "--batch", "0" }, { "--batch", "1..4096" } },
        { { BASE, "--batch", "4097" }, { "--batch", "1..4096" } },
        { { BASE, "--threads", "513" }, { "--threads", "0..512" } },
        { { BASE, "--timeout-ms", "0" }, { "--timeout-ms", "1..3600000" } },
        { { BASE, "--kv", "f8" }, { "--kv", "\"f8\"", "f16|f32" } },
        { { BASE, "--expert-groups", "2" }, { "--expert-groups", "\"2\"", "on|off" } },
        { { BASE, "--activations", "f32", "--kv", "f16" }, { "--kv", "--activations f32" } },
        { { BASE, "--bos", "" }, { "--bos", "auto|on|off" } },
        { { BASE, "--model", "" }, { "--model", "empty" } },
        { { BASE, "--stop", "" }, { "--stop", "1..256" } },
        { { BASE, "--verbose", "-q" }, { "--verbose", "--quiet" } },
        { { BASE, "--logprobs", "3" }, { "--logprobs 3", "--json" } },
        { { BASE, "--logprobs", "101", "--json" }, { "--logprobs", "0..100" } },
        { { BASE, "-w", "4097" }, { "--workers", "0..4096" } },
        { { BASE, "-w", "2", "--cluster", "c" }, { "--workers", "--cluster" } },
        { { BASE, "--dry-run" }, { "--dry-run", "-w" } },
        { { BASE, "-w", "2", "--transport", "inproc" }, { "--transport inproc" } },
        { { BASE, "--transport", "smoke" }, { "--transport", "\"smoke\"" } },
        { { BASE, "--experts", "1,,0" }, { "--experts", "is 0", "1..4096" } },
        { { BASE, "--experts", "," }, { "--experts", "no number" } },
        { { BASE, "--experts", "3-4" }, { "--experts", "\"3-4\"" } },
        { { BASE, "--experts", "2,2", "-w", "3" }, { "--experts", "2 numbers for 3 workers" } },
        { { BASE, "--experts", "2", "--placement", "rotate" }, { "--experts", "--placement" } },
        { { "-m", "x", "--ids", "1 2 x" }, { "--ids", "\"x\"" } },
        { { "-m", "x", "--ids", "2147483648" }, { "--ids", "2147483648" } },
        { { "-m", "x", "--ids", "99999999999999999999999" }, { "--ids" } },
        { { "-m", "x", "--ids", "-1" }, { "--ids", "\"-1\"" } },
        { { BASE, "--listen", "host:0" }, { "--listen", "host:0", "1..65535" } },
        { { BASE, "--listen", "host:65536" }, { "--listen" } },
        { { BASE, "--listen", ":5000" }, { "--listen" } },
        { { BASE, "--listen", "a b" }, { "--listen" } },
        { { BASE, "--listen", "tcp://h" }, { "--listen" } },
        { { BASE, "--listen", "[::1" }, { "--listen" } },
        { { BASE, "--listen", "::1" }, { "--listen" } },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const char *argv[12] = { "run" };
        char line[512];
        tr_run_options o;

        memcpy(argv + 1, bad[i].argv, sizeof bad[i].argv);
        tr_status st = parse(argv, &o, line, sizeof line);
        print_message("  %s\n", line);
        assert_int_equal(st, TR_E_USAGE);
        assert_null(strchr(line, '\n'));
        for (size_t j = 0; j < 3 && bad[i].says[j]; j++)
            assert_non_null(strstr(line, bad[i].says[j]));
    }
}

static void too_many_or_too_long_stops_are_refused(void **state)
{
    const char *argv[MAX_ARGS + 1] = { "run", BASE };
    char big[TR_RUN_MAX_STOP_SIZE + 2], line[512];
    tr_run_options o;

    (void)state;
    for (int i = 0; i < TR_RUN_MAX_STOPS; i++) {
        argv[5 + 2 * i] = "--stop";
        argv[6 + 2 * i] = "x";
    }
    good(argv, &o);
    assert_int_equal(o.n_stops, TR_RUN_MAX_STOPS);
    argv[5 + 2 * TR_RUN_MAX_STOPS] = "--stop=y";
    assert_int_equal(parse(argv, &o, line, sizeof line), TR_E_USAGE);
    assert_non_null(strstr(line, "more than 16"));

    memset(big, 'a', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    const char *long_stop[] = { "run", BASE, "--stop", big, NULL };
    assert_int_equal(parse(long_stop, &o, line, sizeof line), TR_E_USAGE);
    assert_non_null(strstr(line, "257 bytes"));
    long_stop[6] = big + 1;
    good(long_stop, &o);
}

static void ids_are_read_up_to_their_limit(void **state)
{
    uint32_t ids[3] = { 0 };
    size_t n = 0;
    char line[256];

    (void)state;
    assert_int_equal(tr_run_ids_parse(" 1,22\n2147483647 ", "x", ids, 3, &n), TR_OK);
    assert_int_equal(n, 3);
    assert_true(ids[0] == 1 && ids[1] == 22 && ids[2] == 2147483647u);
    assert_int_equal(tr_run_ids_parse("1 2 3 4", "x", NULL, 4, &n), TR_OK);
    assert_int_equal(n, 4);
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_run_ids_parse("1 2 3 4", "file f", ids, 3, &n), TR_E_USAGE);
    tr_fail_capture_end();
    assert_string_equal(line, "file f: more than 3 numbers");
}

/* Standard output of tr_run_options_parse into text. */
static void help_take(int argc, char **argv, char *text, size_t size)
{
    FILE *file = tmpfile();
    int keep = dup(1);
    tr_run_options o;
    bool done = false;

    assert_non_null(file);
    fflush(stdout);
    assert_true(dup2(fileno(file), 1) == 1);
    tr_status st = tr_run_options_parse(argc, argv, &o, &done);
    fflush(stdout);
    assert_true(dup2(keep, 1) == 1);
    close(keep);
    assert_int_equal(st, TR_OK);
    assert_true(done);
    rewind(file);
    text[fread(text, 1, size - 1, file)] = '\0';
    fclose(file);
}

static void help_shows_every_option_in_100_columns(void **state)
{
    static const char *const names[] = {
        "--model",   "--prompt",  "--file",    "--ids",        "--ids-file",   "--bos",
        "--tokens",  "--stop",    "--ctx",     "--ignore-eos", "--batch",      "--threads",
        "--temp",    "--top-k",   "--top-p",   "--min-p",      "--seed",       "--repeat-penalty",
        "--kv",      "--isa",     "--json",    "--logprobs",   "--verbose",    "--quiet",
        "--workers", "--cluster", "--dry-run", "--placement",  "--transport",  "--activations",
        "--listen",  "--experts", "--help",    "--timeout-ms", "--silence-ms", "--expert-groups"
    };
    static char run[] = "run", eval[] = "eval", flag[] = "--help";
    char *argv[] = { run, flag, NULL };
    char text[16384];

    (void)state;
    help_take(2, argv, text, sizeof text);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_non_null(strstr(text, names[i]));
    assert_null(strstr(text, "--progress")); /* the launcher's own */
    assert_null(strstr(text, "--skip"));     /* eval's */
    for (const char *l = text; *l; l += strcspn(l, "\n") + 1)
        assert_true(strcspn(l, "\n") <= 100);
    argv[0] = eval;
    help_take(2, argv, text, sizeof text);
    assert_non_null(strstr(text, "--skip"));
    assert_null(strstr(text, "--temp"));
    for (const char *l = text; *l; l += strcspn(l, "\n") + 1)
        assert_true(strcspn(l, "\n") <= 100);
}

typedef struct {
    size_t n, launcher_only;
    char text[512];
} seen;

static void see(void *ctx, const char *name, const char *value, bool launcher_only)
{
    seen *s = ctx;
    size_t used = strlen(s->text);

    s->n++;
    s->launcher_only += launcher_only;
    snprintf(s->text + used, sizeof s->text - used, "%s%s=%s", used ? " " : "", name,
             value ? value : "*");
}

static void walking_gives_every_option_by_its_long_name(void **state)
{
    static char words[][16] = { "run", "-m", "x", "-qp", "a b", "--workers=2", "--js", "-n3" };
    char *argv[9] = { 0 };
    tr_run_options o;
    bool done;
    seen s = { 0 };

    (void)state;
    for (size_t i = 0; i < 8; i++)
        argv[i] = words[i];
    assert_int_equal(tr_run_options_parse(8, argv, &o, &done), TR_OK);
    tr_run_options_each(8, argv, see, &s);
    assert_string_equal(s.text, "model=x quiet=* prompt=a b workers=2 json=* tokens=3");
    assert_int_equal(s.launcher_only, 1);
}

/* The bare text is handed on as --file; --ctx and --skip are eval's. */
static void eval_shares_the_options_of_run(void **state)
{
    static char words[][16] = { "eval", "text", "-m", "x", "-w2", "--sk=3", "--ctx", "9" };
    char *argv[9] = { 0 };
    tr_run_options o;
    bool done;
    seen s = { 0 };

    (void)state;
    for (size_t i = 0; i < 8; i++)
        argv[i] = words[i];
    assert_int_equal(tr_run_options_parse(8, argv, &o, &done), TR_OK);
    assert_true(o.is_eval && o.has_skip);
    assert_string_equal(o.prompt_file, "text");
    assert_int_equal(o.skip, 3);
    assert_int_equal(o.ctx, 9);
    tr_run_options_each(8, argv, see, &s);
    assert_string_equal(s.text, "file=text model=x workers=2 skip=3 ctx=9");
}

static void what_eval_can_not_do_is_refused(void **state)
{
    static const struct {
        const char *argv[8];
        const char *word;
    } bad[] = {
        { { "eval", "-m", "x" }, "no text" },
        { { "eval", "a", "b", "-m", "x" }, "\"b\": more than one text" },
        { { "eval", "a", "-m", "x", "-p", "b" }, "more than one text" },
        { { "eval", "a", "-m", "x", "--temp", "0" }, "unknown" },
        { { "eval", "a", "-m", "x", "--skip", "511" }, "no position that counts" },
        { { "eval", "a", "-m", "x", "--ctx", "1" }, "--ctx 1" },
        { { "eval", "a", "-m", "x", "--save=b", "--kl=b" }, "two different files" },
        { { "run", "-p", "a", "-m", "x", "--skip", "1" }, "unknown" },
    };
    tr_run_options o;
    char line[512];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(parse(bad[i].argv, &o, line, sizeof line), TR_E_USAGE);
        if (!strstr(line, bad[i].word))
            print_message("  %s: %s\n", bad[i].word, line);
        assert_non_null(strstr(line, bad[i].word));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eval_shares_the_options_of_run),
        cmocka_unit_test(what_eval_can_not_do_is_refused),
        cmocka_unit_test(defaults_are_what_the_help_promises),
        cmocka_unit_test(every_option_reaches_its_field),
        cmocka_unit_test(every_transport_has_its_name),
        cmocka_unit_test(exact_activations_bring_an_exact_cache),
        cmocka_unit_test(the_last_of_a_repeated_option_counts),
        cmocka_unit_test(what_is_wrong_is_named_with_value_and_range),
        cmocka_unit_test(too_many_or_too_long_stops_are_refused),
        cmocka_unit_test(ids_are_read_up_to_their_limit),
        cmocka_unit_test(help_shows_every_option_in_100_columns),
        cmocka_unit_test(walking_gives_every_option_by_its_long_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
