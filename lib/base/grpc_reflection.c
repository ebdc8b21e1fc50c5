#include "lib/base/grpc_reflection.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "google/protobuf/descriptor.pb-c.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "lib/base/arena.h"

#define NAME_MAX_LEN 512

struct file {
    const Google__Protobuf__FileDescriptorProto *proto;
    ProtobufCBinaryData raw;
};

/* A message, enum, service, method or extension, by its full name. */
struct symbol {
    const char *name;
    size_t file;
    const char *extendee; /* extensions: full name with a leading dot */
    int32_t number;
};

struct grpc_reflection {
    struct grpc_server *server;
    struct arena arena;
    struct file *files;
    size_t file_count;
    struct symbol *symbols; /* sorted by name */
    size_t symbol_count, symbol_cap;
    bool failed;
};

extern const uint8_t _binary_descriptors_bin_start[], _binary_descriptors_bin_end[];

struct slice grpc_reflection_builtin(void)
{
    return (struct slice){_binary_descriptors_bin_start,
                          (size_t)(_binary_descriptors_bin_end - _binary_descriptors_bin_start)};
}

/* --- the index ---------------------------------------------------------------------------------------------------- */

/* Returns NULL and sets failed when memory has run out or the name is too long. */
static struct symbol *add_symbol(struct grpc_reflection *r, size_t file, const char *scope, const char *name)
{
    if (r->symbol_count == r->symbol_cap) {
        size_t cap = r->symbol_cap ? r->symbol_cap * 2 : 256;
        struct symbol *more = realloc(r->symbols, cap * sizeof *more);
        if (!more)
            goto fail;
        r->symbols = more;
        r->symbol_cap = cap;
    }
    char full[NAME_MAX_LEN];
    int n = snprintf(full, sizeof full, "%s%s%s", scope, *scope ? "." : "", name ? name : "");
    const char *copy = n < 0 || n >= (int)sizeof full ? NULL : arena_copy(&r->arena, full, (size_t)n);
    if (!copy)
        goto fail;
    struct symbol *s = &r->symbols[r->symbol_count++];
    *s = (struct symbol){.name = copy, .file = file};
    return s;
fail:
    r->failed = true;
    return NULL;
}

static void add_extensions(struct grpc_reflection *r, size_t file, const char *scope,
                           Google__Protobuf__FieldDescriptorProto **list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct symbol *s = add_symbol(r, file, scope, list[i]->name);
        if (!s)
            return;
        s->extendee = list[i]->extendee;
        s->number = list[i]->number;
    }
}

static void add_message(struct grpc_reflection *r, size_t file, const char *scope,
                        const Google__Protobuf__DescriptorProto *m)
{
    const struct symbol *symbol = add_symbol(r, file, scope, m->name);
    if (!symbol)
        return;
    const char *name = symbol->name;
    for (size_t i = 0; i < m->n_nested_type; i++)
        add_message(r, file, name, m->nested_type[i]);
    for (size_t i = 0; i < m->n_enum_type; i++)
        add_symbol(r, file, name, m->enum_type[i]->name);
    for (size_t i = 0; i < m->n_field; i++)
        add_symbol(r, file, name, m->field[i]->name);
    add_extensions(r, file, name, m->extension, m->n_extension);
}

static void add_service(struct grpc_reflection *r, size_t file, const char *scope,
                        const Google__Protobuf__ServiceDescriptorProto *s)
{
    const struct symbol *symbol = add_symbol(r, file, scope, s->name);
    if (!symbol)
        return;
    const char *name = symbol->name;
    for (size_t i = 0; i < s->n_method; i++)
        add_symbol(r, file, name, s->method[i]->name);
}

static void add_file(struct grpc_reflection *r, size_t file)
{
    const Google__Protobuf__FileDescriptorProto *f = r->files[file].proto;
    const char *scope = f->package ? f->package : "";
    for (size_t i = 0; i < f->n_message_type; i++)
        add_message(r, file, scope, f->message_type[i]);
    for (size_t i = 0; i < f->n_enum_type; i++)
        add_symbol(r, file, scope, f->enum_type[i]->name);
    for (size_t i = 0; i < f->n_service; i++)
        add_service(r, file, scope, f->service[i]);
    add_extensions(r, file, scope, f->extension, f->n_extension);
}

static int compare_symbols(const void *a, const void *b)
{
    return strcmp(((const struct symbol *)a)->name, ((const struct symbol *)b)->name);
}

/* The set is nothing but its files, each a field 1 with a length: the raw bytes of each are what clients get. */
static bool cut_files(struct grpc_reflection *r, struct slice set)
{
    for (size_t i = 0; i < r->file_count; i++) {
        uint8_t tag, byte = 0x80;
        size_t len = 0;
        struct slice raw;
        if (!slice_u8(&set, &tag) || tag != 0x0A)
            return false;
        for (unsigned shift = 0; byte & 0x80; shift += 7) {
            if (shift > 28 || !slice_u8(&set, &byte))
                return false;
            len |= (size_t)(byte & 0x7F) << shift;
        }
        if (!slice_bytes(&set, len, &raw))
            return false;
        r->files[i].raw = (ProtobufCBinaryData){raw.len, (uint8_t *)raw.data};
    }
    return set.len == 0;
}

static bool load(struct grpc_reflection *r, struct slice set)
{
    Google__Protobuf__FileDescriptorSet *all =
        google__protobuf__file_descriptor_set__unpack(arena_allocator(&r->arena), set.len, set.data);
    if (!all)
        return false;
    r->file_count = all->n_file;
    r->files = calloc(r->file_count + 1, sizeof *r->files);
    if (!r->files || !cut_files(r, set))
        return false;
    for (size_t i = 0; i < r->file_count && !r->failed; i++) {
        r->files[i].proto = all->file[i];
        add_file(r, i);
    }
    if (r->symbol_count)
        qsort(r->symbols, r->symbol_count, sizeof *r->symbols, compare_symbols);
    return !r->failed;
}

static size_t find_file(const struct grpc_reflection *r, const char *name)
{
    size_t i = 0;
    while (i < r->file_count && strcmp(r->files[i].proto->name ? r->files[i].proto->name : "", name) != 0)
        i++;
    return i;
}

static size_t find_symbol(const struct grpc_reflection *r, const char *name)
{
    struct symbol key = {.name = name};
    const struct symbol *s =
        r->symbol_count ? bsearch(&key, r->symbols, r->symbol_count, sizeof key, compare_symbols) : NULL;
    return s ? s->file : r->file_count;
}

static bool extends(const struct symbol *s, const char *type)
{
    return s->extendee && strcmp(s->extendee + (s->extendee[0] == '.'), type) == 0;
}

static size_t find_extension(const struct grpc_reflection *r, const char *type, int32_t number)
{
    for (size_t i = 0; i < r->symbol_count; i++)
        if (extends(&r->symbols[i], type) && r->symbols[i].number == number)
            return r->symbols[i].file;
    return r->file_count;
}

/* --- answers ------------------------------------------------------------------------------------------------------ */

/* One answer being made; its parts live in the arena until it is sent. */
struct answer {
    struct grpc_reflection *r;
    struct arena arena;
    Grpc__Reflection__V1__ServerReflectionResponse response;
    Grpc__Reflection__V1__ErrorResponse error;
    Grpc__Reflection__V1__FileDescriptorResponse files;
    Grpc__Reflection__V1__ExtensionNumberResponse numbers;
    Grpc__Reflection__V1__ListServiceResponse services;
};

static void say_error(struct answer *a, enum status_code code, const char *words)
{
    grpc__reflection__v1__error_response__init(&a->error);
    a->error.error_code = (int32_t)code;
    a->error.error_message = (char *)words;
    a->response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    a->response.error_response = &a->error;
}

/* Marks the file and all it imports, in dependency order: imports stand before their importers in a FileDescriptorSet.
 */
static void say_file(struct answer *a, size_t file, const char *words)
{
    struct grpc_reflection *r = a->r;
    bool *wanted = arena_alloc(&a->arena, r->file_count + 1);
    ProtobufCBinaryData *list = arena_alloc(&a->arena, (r->file_count + 1) * sizeof *list);
    if (file == r->file_count || !wanted || !list) {
        say_error(a, STATUS_NOT_FOUND, words);
        return;
    }
    memset(wanted, 0, r->file_count + 1);
    wanted[file] = true;
    size_t n = 0;
    for (size_t i = file + 1; i-- > 0;) {
        if (!wanted[i])
            continue;
        const Google__Protobuf__FileDescriptorProto *f = r->files[i].proto;
        for (size_t k = 0; k < f->n_dependency; k++)
            wanted[find_file(r, f->dependency[k])] = true;
        list[n++] = r->files[i].raw;
    }
    grpc__reflection__v1__file_descriptor_response__init(&a->files);
    a->files.n_file_descriptor_proto = n;
    a->files.file_descriptor_proto = list;
    a->response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    a->response.file_descriptor_response = &a->files;
}

static void say_numbers(struct answer *a, const char *type)
{
    const struct grpc_reflection *r = a->r;
    int32_t *numbers = arena_alloc(&a->arena, (r->symbol_count + 1) * sizeof *numbers);
    if (!numbers || find_symbol(r, type) == r->file_count) {
        say_error(a, STATUS_NOT_FOUND, "unknown type");
        return;
    }
    grpc__reflection__v1__extension_number_response__init(&a->numbers);
    for (size_t i = 0; i < r->symbol_count; i++)
        if (extends(&r->symbols[i], type))
            numbers[a->numbers.n_extension_number++] = r->symbols[i].number;
    a->numbers.base_type_name = (char *)type;
    a->numbers.extension_number = numbers;
    a->response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ALL_EXTENSION_NUMBERS_RESPONSE;
    a->response.all_extension_numbers_response = &a->numbers;
}

static void add_listed(void *arg, const char *name, size_t len)
{
    struct answer *a = arg;
    Grpc__Reflection__V1__ServiceResponse *s = arena_alloc(&a->arena, sizeof *s);
    char *copy = arena_copy(&a->arena, name, len);
    if (!s || !copy)
        return;
    grpc__reflection__v1__service_response__init(s);
    s->name = copy;
    a->services.service[a->services.n_service++] = s;
}

static void count_listed(void *arg, const char *name, size_t len)
{
    (void)name, (void)len;
    ++*(size_t *)arg;
}

static void say_services(struct answer *a)
{
    size_t n = 0;
    grpc_server_each_service(a->r->server, count_listed, &n);
    grpc__reflection__v1__list_service_response__init(&a->services);
    a->services.service = arena_alloc(&a->arena, (n + 1) * sizeof *a->services.service);
    if (a->services.service)
        grpc_server_each_service(a->r->server, add_listed, a);
    a->response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    a->response.list_services_response = &a->services;
}

static void say(struct answer *a, const Grpc__Reflection__V1__ServerReflectionRequest *q)
{
    const Grpc__Reflection__V1__ExtensionRequest *e;
    switch (q->message_request_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        say_file(a, find_file(a->r, q->file_by_filename), "unknown file");
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        say_file(a, find_symbol(a->r, q->file_containing_symbol), "unknown symbol");
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
        e = q->file_containing_extension;
        say_file(a, find_extension(a->r, e->containing_type, e->extension_number), "unknown extension");
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
        say_numbers(a, q->all_extension_numbers_of_type);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        say_services(a);
        break;
    default:
        say_error(a, STATUS_INVALID_ARGUMENT, "unknown request");
    }
}

/* --- methods ------------------------------------------------------------------------------------------------------ */

static void on_drain(struct grpc_call *call, void *service)
{
    (void)service;
    grpc_call_pause(call, false);
}

static void message(struct grpc_call *call, void *service, const ProtobufCMessage *m)
{
    const Grpc__Reflection__V1__ServerReflectionRequest *request =
        (const Grpc__Reflection__V1__ServerReflectionRequest *)m;
    struct answer a = {.r = service};
    grpc__reflection__v1__server_reflection_response__init(&a.response);
    a.response.valid_host = request->host;
    a.response.original_request = (Grpc__Reflection__V1__ServerReflectionRequest *)request;
    say(&a, request);
    grpc_call_send(call, &a.response.base);
    arena_free(&a.arena);
    /* Whoever asks without reading waits. */
    grpc_call_on_drain(call, on_drain);
    if (grpc_call_pending(call) > 256 * 1024)
        grpc_call_pause(call, true);
}

static void end(struct grpc_call *call, void *service)
{
    (void)service;
    grpc_call_finish(call, NULL);
}

/* v1 and v1alpha differ in nothing but the package's name: one set of messages serves both. */
static const struct grpc_method methods[] = {
    {.path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
     .request = &grpc__reflection__v1__server_reflection_request__descriptor,
     .response = &grpc__reflection__v1__server_reflection_response__descriptor,
     .client_streaming = true,
     .server_streaming = true,
     .message = message,
     .end = end,
     .cancelled = end},
    {.path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
     .request = &grpc__reflection__v1__server_reflection_request__descriptor,
     .response = &grpc__reflection__v1__server_reflection_response__descriptor,
     .client_streaming = true,
     .server_streaming = true,
     .message = message,
     .end = end,
     .cancelled = end},
    {.path = NULL},
};

struct grpc_reflection *grpc_reflection_new(struct grpc_server *server, struct slice set)
{
    struct grpc_reflection *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->server = server;
    if (!load(r, set)) {
        grpc_reflection_free(&r);
        return NULL;
    }
    grpc_server_add(server, methods, NULL, r);
    return r;
}

void grpc_reflection_free(struct grpc_reflection **rp)
{
    struct grpc_reflection *r = *rp;
    if (!r)
        return;
    arena_free(&r->arena);
    free(r->files);
    free(r->symbols);
    free(r);
    *rp = NULL;
}
