#include "cli/target.h"

#include "cli/show.h"

static int side_ways(const struct target_side *s)
{
    bool by_id = s->devices.count || s->devices_file;

    return by_id + (s->groups.count > 0) + (s->platform != NULL) + (s->filter != NULL);
}

int target_ways(const struct target_flags *t)
{
    return t->all + side_ways(&t->who);
}

bool target_given(const struct target_flags *t)
{
    return target_ways(t) || side_ways(&t->exclude);
}

static Muster__V1__Target *target_new(struct invocation *inv)
{
    Muster__V1__Target *out = invocation_alloc(inv, sizeof *out);

    muster__v1__target__init(out);
    return out;
}

static Muster__V1__Target *from_side(struct invocation *inv, struct target_side *s)
{
    Muster__V1__Target *out = target_new(inv);
    int platform;

    if (s->devices.count || s->devices_file) {
        input_ids_load(inv, &s->devices, s->devices_file, &s->ids);
        out->kind_case = MUSTER__V1__TARGET__KIND_DEVICES;
        out->devices = invocation_alloc(inv, sizeof *out->devices);
        muster__v1__device_ids__init(out->devices);
        out->devices->ids = s->ids.ids;
        out->devices->n_ids = s->ids.count;
    } else if (s->groups.count) {
        out->kind_case = MUSTER__V1__TARGET__KIND_GROUPS;
        out->groups = invocation_alloc(inv, sizeof *out->groups);
        muster__v1__group_names__init(out->groups);
        out->groups->names = (char **)s->groups.items;
        out->groups->n_names = s->groups.count;
    } else if (s->filter) {
        out->kind_case = MUSTER__V1__TARGET__KIND_FILTER;
        out->filter = (char *)s->filter;
    } else {
        if (!show_read_enum(&muster__v1__platform__descriptor, s->platform, &platform))
            args_refuse(inv, "--platform %s: is none of %s", s->platform,
                        show_enum_choices(&muster__v1__platform__descriptor));
        out->kind_case = MUSTER__V1__TARGET__KIND_PLATFORM;
        out->platform = (Muster__V1__Platform)platform;
    }
    return out;
}

Muster__V1__Target *target_from_flags(struct invocation *inv, struct target_flags *t)
{
    Muster__V1__Target *out;

    if (t->all) {
        out = target_new(inv);
        out->kind_case = MUSTER__V1__TARGET__KIND_ALL;
        out->all = true;
    } else {
        out = from_side(inv, &t->who);
    }
    if (side_ways(&t->exclude) > 1)
        args_refuse(inv, "takes at most one of --exclude-device or --exclude-devices-file, --exclude-group,"
                         " --exclude-platform, --exclude-filter; a filter can say it all");
    if (side_ways(&t->exclude))
        out->exclude = from_side(inv, &t->exclude);
    return out;
}
