/* Session tickets of one server shown to another: memory BIOs between stock OpenSSL ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/tls_ticket.h"
#include "tests/unit/certificate.h"

struct world {
    char cert[64], key[64];
    SSL_CTX *client, *server[2];
    struct tls_tickets *tickets[2];
    SSL_SESSION *session; /* what the client was given last */
};

static const struct tls_ticket_key KEY_A = {"name a", "cipher a", "mac a"}, KEY_B = {"name b", "cipher b", "mac b"};

static int set_up(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    snprintf(w->cert, sizeof w->cert, "/tmp/muster-ticket-%d.pem", (int)getpid());
    snprintf(w->key, sizeof w->key, "/tmp/muster-ticket-%d.key", (int)getpid());
    make_certificate(w->cert, w->key);
    w->client = SSL_CTX_new(TLS_client_method());
    for (int i = 0; i < 2; i++) {
        w->server[i] = SSL_CTX_new(TLS_server_method());
        assert_int_equal(SSL_CTX_use_certificate_chain_file(w->server[i], w->cert), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey_file(w->server[i], w->key, SSL_FILETYPE_PEM), 1);
        SSL_CTX_set_session_cache_mode(w->server[i], SSL_SESS_CACHE_OFF);
        w->tickets[i] = tls_tickets_new(w->server[i]);
        assert_non_null(w->tickets[i]);
    }
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    SSL_SESSION_free(w->session);
    SSL_CTX_free(w->client);
    for (int i = 0; i < 2; i++) {
        SSL_CTX_free(w->server[i]);
        tls_tickets_free(&w->tickets[i]);
    }
    unlink(w->cert);
    unlink(w->key);
    free(w);
    return 0;
}

/* Connects with the session kept, if there is one; whether it was resumed. The client gets a new one. */
static bool resumes_at(struct world *w, int server, int version)
{
    SSL *c = SSL_new(w->client), *s = SSL_new(w->server[server]);
    BIO *a, *b;
    char byte;
    assert_int_equal(BIO_new_bio_pair(&a, 0, &b, 0), 1);
    SSL_set_bio(c, a, a);
    SSL_set_bio(s, b, b);
    SSL_set_max_proto_version(c, version);
    SSL_set_connect_state(c);
    SSL_set_accept_state(s);
    if (w->session)
        assert_int_equal(SSL_set_session(c, w->session), 1);
    for (int i = 0; i < 20 && !(SSL_is_init_finished(c) && SSL_is_init_finished(s)); i++) {
        SSL_do_handshake(c);
        SSL_do_handshake(s);
    }
    assert_true(SSL_is_init_finished(c) && SSL_is_init_finished(s));
    SSL_read(c, &byte, 1); /* tickets come behind the handshake (RFC 8446, 4.6.1) */
    bool resumed = SSL_session_reused(s) == 1;
    assert_int_equal(SSL_session_reused(c), resumed);
    SSL_SESSION_free(w->session);
    w->session = SSL_get1_session(c);
    SSL_shutdown(c); /* else the session counts as broken */
    SSL_free(c);
    SSL_free(s);
    return resumed;
}

static void check_shared(struct world *w, int version)
{
    tls_tickets_set(w->tickets[0], &KEY_A, 1, 0);
    tls_tickets_set(w->tickets[1], (const struct tls_ticket_key[]){KEY_B, KEY_A}, 2, 0);
    assert_false(resumes_at(w, 0, version));
    assert_true(resumes_at(w, 1, version)); /* an older key is known, and a ticket under the newer one is given */
    assert_non_null(w->session);
    assert_true(resumes_at(w, 1, version));
    assert_false(resumes_at(w, 0, version)); /* which does not have that key */
    tls_tickets_set(w->tickets[0], (const struct tls_ticket_key[]){KEY_B, KEY_A}, 2, 1);
    assert_true(resumes_at(w, 0, version)); /* made under A, by the full handshake before */
}

static void shared_keys_resume_everywhere(void **state)
{
    check_shared(*state, TLS1_3_VERSION);
}

static void shared_keys_resume_everywhere_with_1_2(void **state)
{
    check_shared(*state, TLS1_2_VERSION);
}

static void a_forged_or_damaged_ticket_is_a_full_handshake(void **state)
{
    struct world *w = *state;
    struct tls_ticket_key forged = KEY_A;
    forged.mac[0] ^= 1;
    tls_tickets_set(w->tickets[0], &KEY_A, 1, 0);
    tls_tickets_set(w->tickets[1], &forged, 1, 0);
    assert_false(resumes_at(w, 0, TLS1_3_VERSION));
    assert_false(resumes_at(w, 1, TLS1_3_VERSION)); /* same name, another authenticator */
    assert_true(resumes_at(w, 1, TLS1_3_VERSION));
}

static void before_keys_are_given_each_server_has_its_own(void **state)
{
    struct world *w = *state;
    assert_false(resumes_at(w, 0, TLS1_3_VERSION));
    assert_true(resumes_at(w, 0, TLS1_3_VERSION));
    assert_false(resumes_at(w, 1, TLS1_3_VERSION));
}

static void what_was_wiped_holds_no_longer(void **state)
{
    struct world *w = *state;
    tls_tickets_set(w->tickets[0], &KEY_A, 1, 0);
    assert_false(resumes_at(w, 0, TLS1_3_VERSION));
    tls_tickets_set(w->tickets[0], &KEY_B, 1, 0);
    assert_false(resumes_at(w, 0, TLS1_3_VERSION));
}

static void only_so_many_are_kept(void **state)
{
    struct world *w = *state;
    struct tls_ticket_key keys[TLS_TICKET_KEYS_MAX + 1] = {0};
    for (uint8_t i = 0; i <= TLS_TICKET_KEYS_MAX; i++)
        keys[i].name[0] = i;
    tls_tickets_set(w->tickets[0], keys, TLS_TICKET_KEYS_MAX + 1, TLS_TICKET_KEYS_MAX - 1);
    tls_tickets_set(w->tickets[1], keys + TLS_TICKET_KEYS_MAX, 1, 0);
    assert_false(resumes_at(w, 1, TLS1_3_VERSION));
    assert_false(resumes_at(w, 0, TLS1_3_VERSION));
    assert_true(resumes_at(w, 0, TLS1_3_VERSION));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(shared_keys_resume_everywhere, set_up, tear_down),
        cmocka_unit_test_setup_teardown(shared_keys_resume_everywhere_with_1_2, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_forged_or_damaged_ticket_is_a_full_handshake, set_up, tear_down),
        cmocka_unit_test_setup_teardown(before_keys_are_given_each_server_has_its_own, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_wiped_holds_no_longer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_so_many_are_kept, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
