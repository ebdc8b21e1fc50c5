#include "lib/base/tls_channel.h"

#include <string.h>

#include "lib/base/pool.h"

/* Handshake messages that come after the handshake (RFC 8446, B.3). */
#define NEW_SESSION_TICKET   4
#define KEY_UPDATE           24
#define MESSAGE_HEADER_SIZE  4
#define UPDATE_NOT_REQUESTED 0
#define UPDATE_REQUESTED     1
/* The longest NewSessionTicket there can be: two numbers, nonce, ticket, extensions (4.6.1). */
#define TICKET_SIZE_MAX (4 + 4 + 1 + 255 + 2 + 65535 + 2 + 65534)
#define ALERT_FATAL     2
#define ALERT_WARNING   1

enum due { DUE_NOTHING, DUE_UPDATE, DUE_UPDATE_AND_ASK };

struct tls_channel {
    struct tls_ciphers *ciphers;
    uint32_t key_records;
    uint32_t skip;                       /* bytes of a ticket still to be passed over */
    uint8_t header[MESSAGE_HEADER_SIZE]; /* of a message that has begun */
    uint8_t header_len;
    uint8_t barren; /* records in a row without data */
    uint8_t due;    /* enum due */
    bool server;
    bool asked;      /* the peer was asked for a key update that has not come yet */
    bool ended;      /* an alert was sent */
    uint64_t keys[]; /* struct tls_keys twice: to read, to write */
};

static struct tls_keys *read_keys(struct tls_channel *c)
{
    return (struct tls_keys *)c->keys;
}

static struct tls_keys *write_keys(struct tls_channel *c)
{
    return (struct tls_keys *)((uint8_t *)c->keys + tls_keys_size(read_keys(c)->suite));
}

static size_t channel_size(enum tls_suite suite)
{
    return sizeof(struct tls_channel) + 2 * tls_keys_size(suite);
}

struct tls_channel *tls_channel_new(struct tls_ciphers *ciphers, const struct tls_channel_start *start)
{
    struct tls_channel *c = pool_take(tls_ciphers_pool(ciphers, start->suite), channel_size(start->suite));
    if (!c)
        return NULL;
    c->ciphers = ciphers;
    c->server = start->server;
    c->key_records = TLS_KEY_RECORDS_MAX;
    if (!tls_keys_init(ciphers, read_keys(c), start->suite, start->read_secret) ||
        !tls_keys_init(ciphers, write_keys(c), start->suite, start->write_secret)) {
        tls_channel_free(&c);
        return NULL;
    }
    read_keys(c)->seq = start->read_seq;
    write_keys(c)->seq = start->write_seq;
    return c;
}

void tls_channel_free(struct tls_channel **channel)
{
    struct tls_channel *c = *channel;
    if (!c)
        return;
    enum tls_suite suite = read_keys(c)->suite;
    /* The first wipe would make the second's place unknown. */
    tls_keys_wipe(c->ciphers, write_keys(c));
    tls_keys_wipe(c->ciphers, read_keys(c));
    pool_give(tls_ciphers_pool(c->ciphers, suite), c, channel_size(suite));
    *channel = NULL;
}

void tls_channel_set_key_records(struct tls_channel *channel, uint32_t records)
{
    channel->key_records = records;
}

/* --- handshake messages ------------------------------------------------------------------------------------------- */

/* Reads the body of a KeyUpdate, which must be the last of its record (5.1). */
static enum tls_alert on_key_update(struct tls_channel *c, const uint8_t *body, size_t len)
{
    if (len > 1)
        return TLS_ALERT_UNEXPECTED_MESSAGE;
    if (body[0] > UPDATE_REQUESTED)
        return TLS_ALERT_ILLEGAL_PARAMETER;
    if (!tls_keys_update(c->ciphers, read_keys(c)))
        return TLS_ALERT_INTERNAL_ERROR;
    c->asked = false;
    if (body[0] == UPDATE_REQUESTED && c->due == DUE_NOTHING)
        c->due = DUE_UPDATE;
    c->header_len = 0;
    return TLS_ALERT_NONE;
}

/* A header is whole: which message, and may it come? */
static enum tls_alert on_header(struct tls_channel *c)
{
    const uint8_t *h = c->header;
    uint32_t size = (uint32_t)h[1] << 16 | (uint32_t)h[2] << 8 | h[3];
    if (h[0] == KEY_UPDATE)
        return size == 1 ? TLS_ALERT_NONE : TLS_ALERT_DECODE_ERROR;
    if (h[0] != NEW_SESSION_TICKET || c->server)
        return TLS_ALERT_UNEXPECTED_MESSAGE;
    if (size == 0 || size > TICKET_SIZE_MAX)
        return TLS_ALERT_DECODE_ERROR;
    c->skip = size;
    c->header_len = 0;
    return TLS_ALERT_NONE;
}

/* Messages may be cut anywhere (5.1); only a header is kept, as a ticket is passed over and a KeyUpdate has one byte.
 */
static enum tls_alert on_handshake(struct tls_channel *c, const uint8_t *data, size_t len)
{
    enum tls_alert alert = len > 0 ? TLS_ALERT_NONE : TLS_ALERT_UNEXPECTED_MESSAGE;
    while (len > 0 && alert == TLS_ALERT_NONE) {
        if (c->skip > 0) {
            size_t n = len < c->skip ? len : c->skip;
            c->skip -= (uint32_t)n;
            data += n;
            len -= n;
        } else if (c->header_len == MESSAGE_HEADER_SIZE) {
            return on_key_update(c, data, len);
        } else {
            c->header[c->header_len++] = *data++;
            len--;
            if (c->header_len == MESSAGE_HEADER_SIZE)
                alert = on_header(c);
        }
    }
    return alert;
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

/* An alert of the peer: all but two end the connection, whatever level they claim (6). */
static enum tls_outcome on_alert(const struct tls_plain *plain, struct tls_received *r)
{
    if (plain->len != 2) {
        r->alert = plain->len == 0 ? TLS_ALERT_UNEXPECTED_MESSAGE : TLS_ALERT_DECODE_ERROR;
        return TLS_BAD;
    }
    if (plain->data[1] == TLS_ALERT_CLOSE_NOTIFY)
        return TLS_DONE;
    if (plain->data[1] == TLS_ALERT_USER_CANCELED)
        return TLS_MORE;
    r->alert = plain->data[1];
    r->alert_came = true;
    return TLS_BAD;
}

static void add_data(struct tls_received *r, const struct tls_plain *plain)
{
    /* One record's data stays where it is; further ones move up to it. */
    if (r->len == 0)
        r->data = plain->data;
    else
        memmove(r->data + r->len, plain->data, plain->len);
    r->len += plain->len;
}

/* Counts records in a row that bring no data; false when there are too many. */
static bool bring_something(struct tls_channel *c, const struct tls_plain *plain)
{
    if (plain->type == TLS_CONTENT_DATA && plain->len > 0)
        c->barren = 0;
    else
        c->barren++;
    return c->barren <= TLS_BARREN_MAX;
}

static enum tls_outcome on_record(struct tls_channel *c, const struct tls_plain *plain, struct tls_received *r)
{
    enum tls_alert alert = TLS_ALERT_UNEXPECTED_MESSAGE;
    bool within = c->skip > 0 || c->header_len > 0; /* a handshake message: nothing may come between its parts (5.1) */
    if (!bring_something(c, plain)) {
        /* Refused as unexpected. */
    } else if (plain->type == TLS_CONTENT_DATA && !within) {
        add_data(r, plain);
        alert = TLS_ALERT_NONE;
    } else if (plain->type == TLS_CONTENT_HANDSHAKE) {
        alert = on_handshake(c, plain->data, plain->len);
    } else if (plain->type == TLS_CONTENT_ALERT && !within) {
        return on_alert(plain, r);
    }
    r->alert = (uint8_t)alert;
    return alert == TLS_ALERT_NONE ? TLS_MORE : TLS_BAD;
}

enum tls_outcome tls_channel_open(struct tls_channel *c, uint8_t *data, size_t len, struct tls_received *r)
{
    enum tls_outcome outcome;
    enum tls_alert alert = TLS_ALERT_NONE;
    size_t size;
    *r = (struct tls_received){.data = data, .alert = TLS_ALERT_NONE};
    while ((outcome = tls_record_find(data + r->used, len - r->used, &size, &alert)) == TLS_DONE) {
        struct tls_plain plain;
        alert = tls_record_open(c->ciphers, read_keys(c), data + r->used, size, &plain);
        if (alert != TLS_ALERT_NONE) {
            outcome = TLS_BAD;
            break;
        }
        r->used += size;
        outcome = on_record(c, &plain, r);
        if (outcome != TLS_MORE)
            return outcome;
    }
    if (outcome == TLS_BAD)
        r->alert = (uint8_t)alert;
    if (read_keys(c)->seq >= c->key_records && !c->asked)
        tls_channel_renew(c);
    return outcome;
}

void tls_channel_renew(struct tls_channel *c)
{
    c->asked = true;
    c->due = DUE_UPDATE_AND_ASK;
}

/* --- sealing ------------------------------------------------------------------------------------------------------ */

/* Puts a key update, if one is due, and changes the key. False when OpenSSL fails. */
static bool put_update(struct tls_channel *c, uint8_t *room, size_t *at)
{
    if (write_keys(c)->seq >= c->key_records && c->due == DUE_NOTHING)
        c->due = DUE_UPDATE;
    if (c->due == DUE_NOTHING)
        return true;
    const uint8_t message[] = {KEY_UPDATE, 0, 0, 1,
                               c->due == DUE_UPDATE_AND_ASK ? UPDATE_REQUESTED : UPDATE_NOT_REQUESTED};
    size_t n = tls_record_seal(c->ciphers, write_keys(c), TLS_CONTENT_HANDSHAKE, message, sizeof message, room + *at);
    *at += n;
    c->due = DUE_NOTHING;
    return n > 0 && tls_keys_update(c->ciphers, write_keys(c));
}

struct slice tls_channel_seal(struct tls_channel *c, const uint8_t *data, size_t len, size_t *taken)
{
    uint8_t *room = tls_ciphers_room(c->ciphers);
    size_t at = 0;
    *taken = 0;
    if (c->ended || !put_update(c, room, &at))
        return (struct slice){room, 0};
    for (unsigned i = 0; i < 2 && *taken < len; i++) {
        size_t part = len - *taken < TLS_PLAIN_MAX ? len - *taken : TLS_PLAIN_MAX;
        size_t n = tls_record_seal(c->ciphers, write_keys(c), TLS_CONTENT_DATA, data + *taken, part, room + at);
        if (n == 0)
            return (struct slice){room, 0};
        at += n;
        *taken += part;
    }
    return (struct slice){room, at};
}

struct slice tls_channel_alert(struct tls_channel *c, uint8_t description)
{
    uint8_t *room = tls_ciphers_room(c->ciphers);
    const uint8_t message[] = {description == TLS_ALERT_CLOSE_NOTIFY ? ALERT_WARNING : ALERT_FATAL, description};
    size_t n = 0;
    if (!c->ended)
        n = tls_record_seal(c->ciphers, write_keys(c), TLS_CONTENT_ALERT, message, sizeof message, room);
    c->ended = true;
    return (struct slice){room, n};
}
