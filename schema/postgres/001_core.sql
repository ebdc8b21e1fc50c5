-- The truth: tenants, keys, devices, groups, batches, and what became of every command.
-- Times are milliseconds since 1970 (bigint), as the programs use them; the views show timestamptz.

-- A company whose devices are managed.
CREATE TABLE tenant (
    id         integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name       text    NOT NULL UNIQUE,
    next_seq   integer NOT NULL DEFAULT 0,     -- the seq the next device gets
    devices    integer NOT NULL DEFAULT 0,     -- registered now
    created_ms bigint  NOT NULL
);

-- API keys. The secret is 256 random bits; only its SHA-256 is here.
CREATE TABLE api_key (
    id          bigint   PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    tenant_id   integer  NOT NULL REFERENCES tenant,
    role        smallint NOT NULL CHECK (role BETWEEN 1 AND 3),   -- muster.v1.Role
    secret_hash bytea    NOT NULL CHECK (length(secret_hash) = 32),
    description text     NOT NULL DEFAULT '',
    created_ms  bigint   NOT NULL,
    revoked_ms  bigint
);
CREATE INDEX api_key_tenant ON api_key (tenant_id, id);

-- Secrets with which device tokens are signed (HMAC-SHA-256). The newest signs, all verify.
CREATE TABLE signing_key (
    id         integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    secret     bytea   NOT NULL CHECK (length(secret) = 32),
    created_ms bigint  NOT NULL
);

-- Devices. seq is dense within the tenant and never used again; a deleted device keeps its row (deleted_ms) without its id.
CREATE TABLE device (
    tenant_id   integer  NOT NULL REFERENCES tenant,
    seq         integer  NOT NULL,
    id          text     NOT NULL,
    platform    smallint NOT NULL,              -- muster.v1.Platform
    information bytea,                          -- encoded muster.v1.DeviceInformation, NULL until it said something
    created_ms  bigint   NOT NULL,
    deleted_ms  bigint,
    PRIMARY KEY (tenant_id, seq)
);
CREATE UNIQUE INDEX device_id ON device (tenant_id, id) WHERE deleted_ms IS NULL;

-- Which slots of a block are registered, by platform: "all" and "platform" are resolved from here, never from device.
CREATE TABLE device_block (
    tenant_id integer  NOT NULL,
    block     integer  NOT NULL,
    platform  smallint NOT NULL,
    slots     bytea    NOT NULL CHECK (length(slots) = 128),   -- bit n of byte n/8, least significant first
    PRIMARY KEY (tenant_id, block, platform)
);

CREATE TABLE device_group (
    id         integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    tenant_id  integer NOT NULL REFERENCES tenant,
    name       text    NOT NULL,
    devices    integer NOT NULL DEFAULT 0,
    created_ms bigint  NOT NULL,
    UNIQUE (tenant_id, name)
);
CREATE TABLE device_group_block (
    group_id integer NOT NULL REFERENCES device_group ON DELETE CASCADE,
    block    integer NOT NULL,
    slots    bytea   NOT NULL CHECK (length(slots) = 128),
    PRIMARY KEY (group_id, block)
);

-- Tokens of a device issued before issued_before_ms are refused.
CREATE TABLE revocation (
    tenant_id        integer NOT NULL,
    seq              integer NOT NULL,
    issued_before_ms bigint  NOT NULL,
    id               bigint  NOT NULL GENERATED ALWAYS AS IDENTITY,  -- grows with each change, so that workers can read on
    PRIMARY KEY (tenant_id, seq)
);
CREATE INDEX revocation_id ON revocation (id);

-- One command addressed to many devices.
CREATE TABLE batch (
    id                  bigint   PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    tenant_id           integer  NOT NULL REFERENCES tenant,
    request_id          text     NOT NULL,
    request_hash        bytea    NOT NULL,      -- SHA-256 of what the request asked for
    description         text     NOT NULL DEFAULT '',
    command             bytea    NOT NULL,      -- encoded muster.v1.Command
    priority            smallint NOT NULL,      -- muster.v1.Priority, never 0
    device_count        integer  NOT NULL,
    unknown_count       integer  NOT NULL DEFAULT 0,
    unknown_ids         text[],                 -- the first 100, for the answer to a repeated request
    created_ms          bigint   NOT NULL,
    expires_ms          bigint   NOT NULL,
    routed_ms           bigint,                 -- when the last block was handed to Redis
    cancel_requested_ms bigint,
    canceled_ms         bigint,                 -- when no worker could send it any more
    closed_ms           bigint,                 -- when the last command became terminal
    counts              integer[],              -- by state number, 12 entries, once closed
    UNIQUE (tenant_id, request_id)
);
CREATE INDEX batch_tenant ON batch (tenant_id, id);
CREATE INDEX batch_unrouted ON batch (id) WHERE routed_ms IS NULL AND closed_ms IS NULL;
CREATE INDEX batch_open ON batch (id) WHERE closed_ms IS NULL;

-- A batch in one block. `targets` is the bitmap of the addressed slots from slot `first` (a multiple of 8) on, cut after
-- its last byte that is not zero. `states` is NULL while every command is still where acceptance put it; then one byte per
-- slot from `first` on (8 * length(targets) of them): low four bits state, high four attempts; 0 where not addressed.
-- `times` has four bytes (little endian) per slot: milliseconds since the batch's created_ms of the last recorded
-- transition, 0 for none.
CREATE TABLE batch_block (
    batch_id bigint   NOT NULL,
    block    integer  NOT NULL,
    first    smallint NOT NULL,
    targets  bytea    NOT NULL,
    states   bytea,
    times    bytea,
    PRIMARY KEY (batch_id, block)
) WITH (fillfactor = 70);
ALTER TABLE batch_block ALTER COLUMN times SET STORAGE EXTERNAL;
CREATE INDEX batch_block_block ON batch_block (block, batch_id);

-- Acknowledgements not yet folded into batch_block. A stream is one life of one worker; n grows with each attempt to store
-- a flush, and rows of a stream commit in the order of n (what failed comes again under a higher number), so that a reader
-- goes on behind the last row it has seen. Entries: see proto/ack_log.h. Folded rows are deleted.
CREATE TABLE ack_stream (
    id         bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    worker     text   NOT NULL,
    created_ms bigint NOT NULL
);
CREATE TABLE ack_log (
    stream  bigint NOT NULL,
    n       bigint NOT NULL,
    at_ms   bigint NOT NULL,
    entries bytea  NOT NULL,
    PRIMARY KEY (stream, n)
);

-- What a device said beyond the outcome.
CREATE TABLE command_result (
    batch_id bigint  NOT NULL,
    seq      integer NOT NULL,
    result   bytea   NOT NULL,                  -- encoded muster.v1.CommandResult
    PRIMARY KEY (batch_id, seq)
);

-- Leases of roles that one process has at a time. The epoch grows with each change of holder and fences the old one.
CREATE TABLE lease (
    name       text   PRIMARY KEY,
    holder     text   NOT NULL,
    epoch      bigint NOT NULL,
    expires_ms bigint NOT NULL                  -- by this server's clock
);

-- Who did what: keys, tenants, deletions, cancels.
CREATE TABLE audit (
    id        bigint  PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    at_ms     bigint  NOT NULL,
    tenant_id integer,
    key_id    bigint,
    action    text    NOT NULL,
    detail    text    NOT NULL DEFAULT ''
);
