#include "cli/pager.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/show.h"

/* Items asked for in one answer: the services' bound for the smaller lists. */
#define PAGE 1000

static char *next_token(const struct pager *p, const ProtobufCMessage *response)
{
    const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field_by_name(p->response, "next_page_token");

    return strdup(*(char *const *)((const char *)response + f->offset));
}

static int64_t item_count(const struct pager *p, const ProtobufCMessage *response)
{
    const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field_by_name(p->response, p->items);

    return (int64_t) * (const size_t *)((const char *)response + f->quantifier_offset);
}

static int run_pages(struct session *s, struct pager *p, int64_t limit)
{
    char *token = strdup("");
    int status = EXIT_DONE;

    for (bool first = true; token && (first || *token) && !ferror(stdout); first = false) {
        *p->page_token = token;
        *p->page_size = limit && limit < PAGE ? (uint32_t)limit : PAGE;
        ProtobufCMessage *answer = session_call(s, p->method, p->request, p->response);
        if (!answer) {
            status = EXIT_RPC_FAIL;
            break;
        }
        if (s->common->json)
            show_json(answer);
        else
            p->show(answer, first);
        free(token);
        token = next_token(p, answer);
        int64_t got = item_count(p, answer);
        session_free_message(answer);
        if (limit && (limit -= got) <= 0)
            break;
    }
    free(token);
    *p->page_token = NULL;
    return status;
}

int pager_run(struct invocation *inv, struct pager *p, const struct pager_flags *flags)
{
    struct session s;

    if (session_open(&s, &inv->common) != ERR_OK)
        return EXIT_USAGE;
    int status = run_pages(&s, p, flags->limit);
    session_close(&s);
    return status;
}
