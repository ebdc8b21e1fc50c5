#include "cli/device_labels.h"

#include <string.h>
#include <strings.h>

#define ATTRIBUTE "attr."

void label_columns_default(struct label_columns *columns)
{
    *columns = (struct label_columns){.names = {"id", "platform"}, .count = 2};
}

static bool is_known(const char *name)
{
    static const char *const known[] = {"id", "platform", "tags", "os_version", "model", "time_zone"};

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(name, known[i]) == 0)
            return true;
    return strncmp(name, ATTRIBUTE, strlen(ATTRIBUTE)) == 0 && name[strlen(ATTRIBUTE)];
}

bool label_columns_read(struct invocation *inv, const char *where, char *line, struct label_columns *columns)
{
    if (strncasecmp(line, "id", 2) != 0 || (line[2] && line[2] != ','))
        return false;
    columns->count = 0;
    columns->labels = false;
    for (char *name; (name = strsep(&line, ","));) {
        if (columns->count < 2)
            for (char *p = name; *p; p++) /* as "ID,Platform" was always taken */
                *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
        if (!is_known(name))
            args_refuse(inv,
                        "%s: column \"%.80s\" is none of id, platform, tags, os_version, model, time_zone, attr.NAME",
                        where, name);
        if (columns->count == LABEL_COLUMNS_MAX)
            args_refuse(inv, "%s: more than %d columns", where, LABEL_COLUMNS_MAX);
        columns->labels |= strcmp(name, "id") != 0 && strcmp(name, "platform") != 0;
        columns->names[columns->count++] = name;
    }
    return true;
}

static Muster__V1__DeviceInformation *information_of(struct invocation *inv, Muster__V1__Device *d)
{
    if (!d->information) {
        d->information = invocation_alloc(inv, sizeof *d->information);
        muster__v1__device_information__init(d->information);
    }
    return d->information;
}

static void add_attribute(struct invocation *inv, Muster__V1__Device *d, const char *name, const char *value)
{
    Muster__V1__Device__AttributesEntry **grown = invocation_alloc(inv, (d->n_attributes + 1) * sizeof *grown);

    if (d->n_attributes)
        memcpy(grown, d->attributes, d->n_attributes * sizeof *grown);
    d->attributes = grown;
    grown[d->n_attributes] = invocation_alloc(inv, sizeof **grown);
    muster__v1__device__attributes_entry__init(grown[d->n_attributes]);
    grown[d->n_attributes]->key = (char *)name;
    grown[d->n_attributes++]->value = (char *)value;
}

static void add_tag(struct invocation *inv, Muster__V1__Device *d, char *tag)
{
    char **grown = invocation_alloc(inv, (d->n_tags + 1) * sizeof *grown);

    if (d->n_tags)
        memcpy(grown, d->tags, d->n_tags * sizeof *grown);
    d->tags = grown;
    grown[d->n_tags++] = tag;
}

void label_set_column(struct invocation *inv, Muster__V1__Device *d, const char *column, char *value)
{
    if (strcmp(column, "tags") == 0) {
        for (char *tag; (tag = strsep(&value, ";"));)
            if (*tag)
                add_tag(inv, d, tag);
    } else if (strcmp(column, "os_version") == 0) {
        if (*value)
            information_of(inv, d)->os_version = value;
    } else if (strcmp(column, "model") == 0) {
        if (*value)
            information_of(inv, d)->model = value;
    } else if (strcmp(column, "time_zone") == 0) {
        d->time_zone = value;
    } else if (strncmp(column, ATTRIBUTE, strlen(ATTRIBUTE)) == 0) {
        add_attribute(inv, d, column + strlen(ATTRIBUTE), value);
    }
}

static char *copy_text(struct invocation *inv, const json_t *text)
{
    return invocation_copy(inv, json_string_value(text), json_string_length(text));
}

const char *label_set_json(struct invocation *inv, Muster__V1__Device *d, json_t *object)
{
    const json_t *tags = json_object_get(object, "tags"), *os = json_object_get(object, "os_version");
    const json_t *model = json_object_get(object, "model"), *zone = json_object_get(object, "time_zone"), *tag, *value;
    json_t *attributes = json_object_get(object, "attributes");
    const char *name;
    size_t i;

    if ((tags && !json_is_array(tags)) || (attributes && !json_is_object(attributes)) || (os && !json_is_string(os)) ||
        (model && !json_is_string(model)) || (zone && !json_is_string(zone)))
        return "tags are a list, attributes an object, os_version, model and time_zone texts";
    json_array_foreach(tags, i, tag)
    {
        if (!json_is_string(tag))
            return "a tag is no text";
        add_tag(inv, d, copy_text(inv, tag));
    }
    json_object_foreach(attributes, name, value)
    {
        if (!json_is_string(value))
            return "an attribute is no text";
        add_attribute(inv, d, invocation_copy(inv, name, strlen(name)), copy_text(inv, value));
    }
    if (os)
        information_of(inv, d)->os_version = copy_text(inv, os);
    if (model)
        information_of(inv, d)->model = copy_text(inv, model);
    if (zone)
        d->time_zone = copy_text(inv, zone);
    return NULL;
}
